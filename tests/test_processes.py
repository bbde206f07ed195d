"""Processes that are ours are found by their mark and ended; all others are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.platform.environment import prepare
from flows.platform.processes import (
    MARK,
    Process,
    marked,
    owner_of,
    platform_mark,
    run_mark,
    stop,
)
from ray_jobs.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_a_mark_names_the_home_and_the_run_it_came_from(settings: Settings, tmp_path: Path) -> None:
    prepare(settings.home)
    run = Process("run", 4321, 12.5)
    assert owner_of(run_mark(settings.home, run), settings.home) == run
    assert owner_of(run_mark(settings.home, run, "ray"), settings.home) == run
    assert owner_of(platform_mark(settings.home, "ray"), settings.home) is None
    assert platform_mark(settings.home, "ray").startswith(platform_mark(settings.home))
    assert platform_mark(tmp_path, "ray") != platform_mark(settings.home, "ray")
    (tmp_path / "alias").symlink_to(settings.home)
    assert platform_mark(tmp_path / "alias", "ray") == platform_mark(settings.home, "ray")


def test_a_process_that_ended_is_not_alive_although_nobody_has_asked_how_it_ended() -> None:
    command = [sys.executable, "-IS", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        process = Process.of("child", child.pid)
        assert process.alive
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not process.alive
    assert not process.alive


STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
input()
"""


def test_who_will_not_end_when_asked_is_ended_and_who_is_gone_already_is_no_error(
    settings: Settings, tmp_path: Path
) -> None:
    command = [sys.executable, "-IS", "-c", STUBBORN]
    mark, other = ({MARK: platform_mark(home, "ray")} for home in (settings.home, tmp_path))
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, env=mark, stdin=pipe, stdout=pipe) as stubborn,
        subprocess.Popen(command, stdin=pipe, stdout=pipe) as unmarked,
        subprocess.Popen(command, env=other, stdin=pipe, stdout=pipe) as elsewhere,
    ):
        for each in (stubborn, unmarked, elsewhere):
            assert each.stdout is not None
            assert each.stdout.readline() == b"ready\n"
        found = marked(settings.home, lambda mark: mark.endswith("ray"))
        assert [p.pid for p in found] == [stubborn.pid]
        assert marked(settings.home, lambda mark: mark.endswith("mlflow")) == []
        stop(found, 0)
        assert not psutil.pid_exists(stubborn.pid)
        stop(found, 0)
        assert (unmarked.poll(), elsewhere.poll()) == (None, None)


DOWN_INSIDE = """
import sys
from pathlib import Path
from flows.platform import down
from ray_jobs.settings import Settings
down(Settings(home=Path(sys.argv[1])))
print("alive")
"""


def test_down_from_inside_the_platform_ends_neither_itself_nor_who_called_it(
    settings: Settings,
) -> None:
    prepare(settings.home)
    script = f'"{sys.executable}" -c "$1" "$2" && echo caller alive'
    done = subprocess.run(
        ["sh", "-c", script, "sh", DOWN_INSIDE, str(settings.home)],
        env={MARK: platform_mark(settings.home, "worker"), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "alive\ncaller alive\n", done.stderr
