"""One at a time: who comes second waits and is told for whom, and a killed holder holds nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.platform.locks import held, lock, nobody_runs, taken
from ray_jobs.errors import UsageError
from ray_jobs.settings import Settings

HOLD = """
import sys
from pathlib import Path
from flows.platform.locks import held
with held(Path(sys.argv[1]), "another run of algebra", print):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], text=True, **pipes)  # type: ignore[call-overload]
    assert child.stdout.readline() == "held\n"
    return child  # type: ignore[no-any-return]


def test_each_service_and_part_has_a_lock_of_its_own(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    places = {lock(settings, s, p) for s in ("algebra", "geometry") for p in ("run", "live")}
    assert len(places) == 4
    assert all(path.is_relative_to(tmp_path) for path in places)


def test_the_second_waits_is_told_once_for_whom_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "algebra.run"
    first, heard, entered = holder(path), [], threading.Event()
    waiting = threading.Event()

    def told(words: str) -> None:
        heard.append(words)
        waiting.set()

    def second() -> None:
        with held(path, "mine", told):
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert waiting.wait(10)
    assert not entered.wait(0.5)
    assert len(heard) == 1
    assert heard[0].startswith(f"waiting for another run of algebra (process {first.pid}, since ")
    first.communicate()
    assert entered.wait(10)
    thread.join()
    assert len(heard) == 1


def test_what_needs_that_nobody_runs_is_refused_while_somebody_does(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with nobody_runs(settings, "erase"):
        pass
    running, live = (lock(settings, "algebra", part) for part in ("run", "live"))
    others = holder(live)
    first = holder(running)
    with (
        pytest.raises(UsageError, match=rf"algebra \(process {first.pid}, .*lyceum erase again"),
        nobody_runs(settings, "erase"),
    ):
        pytest.fail("a run was under way")
    first.communicate()
    with nobody_runs(settings, "erase"), running.open() as file:
        assert not taken(file.fileno()), "and none begins meanwhile"
    others.communicate()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "algebra.live"
    with holder(path) as first:
        with path.open() as file:
            assert not taken(file.fileno())
        first.kill()
        first.wait()
        heard: list[str] = []
        with held(path, "mine", heard.append), path.open() as file:
            assert not taken(file.fileno())
        assert heard == []
    with path.open() as file:
        assert taken(file.fileno()), "given back at the end of the block"
