"""Servers that start together: each when what it needs is ready, and each told apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.platform import starting
from flows.platform.components import Component
from flows.platform.environment import prepare
from flows.platform.processes import Process
from flows.platform.starting import start_all
from ray_jobs.errors import PlatformError

WAITS = "import signal; signal.pause()"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose servers are started quickly or not at all, and ended after the test."""
    monkeypatch.setattr(starting, "POLL_S", 0.01)
    prepare(tmp_path)
    before = {p.pid for p in psutil.Process().children()}
    yield tmp_path
    for child in psutil.Process().children():
        if child.pid not in before:
            child.kill()
            child.wait()


def component(
    name: str,
    code: str = WAITS,
    *,
    ready: Callable[[], bool] = lambda: True,
    after: str = "",
    lasting: bool = True,
) -> Component:
    command = [sys.executable, "-IS", "-c", code]
    return Component(name, command, dict(os.environ), ready, f"place of {name}", after, lasting)


def start(home: Path, *components: Component) -> tuple[list[Process], list[str]]:
    said: list[str] = []
    return start_all(home, list(components), said.append), said


def test_a_server_starts_once_the_one_it_needs_is_ready_and_not_before(home: Path) -> None:
    begun: list[bool] = []

    def first_ready() -> bool:
        begun.append((home / "logs" / "worker.log").exists())
        return len(begun) == 3

    worker = component("worker", after="prefect")
    started, said = start(home, worker, component("prefect", ready=first_ready))
    assert begun == [False] * 3
    assert [line.split(" (")[0] for line in said] == [
        "prefect ready at place of prefect",
        "worker ready at place of worker",
    ]
    assert {p.name for p in started if p.alive} == {"prefect", "worker"}


def test_what_is_up_already_is_not_waited_for(home: Path) -> None:
    (started,), _ = start(home, component("worker", after="prefect"))
    assert started.name == "worker"


def test_a_server_survives_the_interrupt_of_the_terminal_it_was_started_from(home: Path) -> None:
    (started,), _ = start(home, component("mlflow"))
    assert os.getsid(started.pid) == started.pid != os.getsid(0)


def test_who_is_late_is_named_and_who_waits_for_it_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "START_LIMIT_S", 0.1)
    late = [component(name, ready=lambda: False) for name in ("prefect", "ray")]
    with pytest.raises(PlatformError) as told:
        start(home, *late, component("worker", after="prefect"), component("mlflow"))
    assert str(told.value) == f"prefect, ray did not answer within 0 s; see {home / 'logs'}"


@pytest.mark.parametrize("status", [0, 3])
def test_a_server_that_ends_is_told_with_its_last_lines_alone(home: Path, status: int) -> None:
    code = (
        f"for n in range(40): print('line', n)\nprint('\\N{{BULLET}}')\nraise SystemExit({status})"
    )
    (home / "logs" / "ray.log").write_text("what it said the day before")
    with pytest.raises(PlatformError) as told:
        start(home, component("ray", code, ready=lambda: False))
    first, *rest = str(told.value).splitlines()
    path = home / "logs" / "ray.log"
    assert first == f"ray ended with exit status {status} while starting; the end of {path}:"
    assert rest == [*(f"  line {n}" for n in range(26, 40)), "  •"]
    assert path.with_suffix(".log.1").read_text() == "what it said the day before"


def test_a_server_for_which_another_answered_is_not_taken_for_ready(home: Path) -> None:
    answered = home / "answered"
    code = (
        f"import os\nwhile not os.path.exists({str(answered)!r}): pass\nraise SystemExit('in use')"
    )

    def another_answers() -> bool:
        answered.touch()
        return True

    before = psutil.Process().children()

    def once_it_is_dead() -> bool:
        mine = [p for p in psutil.Process().children() if p not in before]
        return psutil.STATUS_ZOMBIE in {p.status() for p in mine}

    dies = component("mlflow", code, ready=another_answers)
    with pytest.raises(PlatformError, match=r"mlflow ended .*\n  in use"):
        start(home, dies, component("prefect", ready=once_it_is_dead))


def test_what_only_has_work_to_do_is_ready_when_it_is_done_and_is_no_server(home: Path) -> None:
    done = home / "done"
    code = f"open({str(done)!r}, 'w').close()"
    (started,), said = start(home, component("serve", code, lasting=False), component("ray"))
    assert started.name == "ray"
    assert done.exists()
    assert any(line.startswith("serve ready") for line in said)
    with pytest.raises(PlatformError, match="serve ended with exit status 2"):
        start(home, component("serve", "raise SystemExit(2)", lasting=False))
