"""Up and down, with small real servers: all of it, the rest of it, and nothing left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from flows.platform import Platform, down, lifecycle, reap, record, running, status, up
from flows.platform.components import Component
from flows.platform.ports import InnerPorts
from flows.platform.processes import MARK, platform_mark
from flows.platform.record import COMPONENTS
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings
from tests.platform_parts import Toys, toys


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def toy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toys]:
    with toys(settings, monkeypatch) as stand_in:
        yield stand_in


def test_up_starts_every_server_once_and_tells_each(settings: Settings, toy: Toys) -> None:
    said: list[str] = []
    platform = up(settings, said.append)
    assert toy.answering(platform) == set(COMPONENTS)
    assert {line.split(" ready")[0] for line in said if "ready" in line} == {*COMPONENTS, "serve"}
    assert {p.name: p.pid for p in platform.processes} == toy.pids()
    assert running(settings) == platform == up(settings)
    assert status(settings)["state"] == "up"


def test_down_ends_the_worker_first_and_leaves_nothing(settings: Settings, toy: Toys) -> None:
    platform = up(settings)
    down(settings)
    # Flow runs tell the server how they ended, so it must still be there.
    ended = toy.ends.read_text().split()
    assert ended[0] == "worker"
    assert sorted(ended) == sorted(COMPONENTS)
    assert (toy.pids(), toy.answering(platform)) == ({}, set())
    assert not Path(platform.ray_temp).exists()
    assert record.read(settings.home) is None
    assert status(settings)["state"] == "down"


def test_down_finds_what_outlived_its_server_and_its_record(settings: Settings, toy: Toys) -> None:
    up(settings)
    toy.kill("ray")
    record.forget(settings.home)
    stray = [sys.executable, "-IS", "-c", "input()"]
    mark = {MARK: platform_mark(settings.home, "ray")}
    with subprocess.Popen(stray, env=mark, stdin=subprocess.PIPE, start_new_session=True):
        down(settings)
        assert toy.pids() == {}


HYDRA = """
import os, signal
def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.fork() or signal.pause()
    os._exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
input()
"""


def test_what_a_server_starts_while_it_is_being_stopped_ends_too(
    settings: Settings, toy: Toys
) -> None:
    up(settings)
    mark = {MARK: platform_mark(settings.home, "ray")}
    command = [sys.executable, "-IS", "-c", HYDRA]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=mark, stdin=pipe, stdout=pipe) as hydra:
        assert hydra.stdout is not None
        assert hydra.stdout.readline() == b"ready\n"
        down(settings)
    assert toy.pids() == {}


@pytest.mark.parametrize("dead", [["mlflow"], ["ray"], ["prefect", "worker"], list(COMPONENTS)])
def test_up_again_starts_what_died_where_it_was_and_keeps_the_rest(
    settings: Settings, toy: Toys, dead: list[str]
) -> None:
    before, pids = up(settings), toy.pids()
    for name in dead:
        toy.kill(name)
    live = [name for name in COMPONENTS if name not in dead]
    assert status(settings)["state"] == ("degraded" if live else "down")
    assert running(settings) is None
    said: list[str] = []
    after, now = up(settings, said.append), toy.pids()
    assert {name for name in COMPONENTS if now[name] != pids[name]} == set(dead)
    assert after.ports == before.ports
    assert (after.ray_temp == before.ray_temp) == ("ray" in live) == Path(before.ray_temp).exists()
    assert toy.answering(after) == set(COMPONENTS)
    assert running(settings) == after
    assert [p["state"] for p in status(settings)["processes"]] == ["up"] * len(COMPONENTS)
    assert any(line.startswith("serve ready") for line in said) == ("ray" in dead)
    kept = [line for line in said if line.startswith("half up")]
    assert kept == ([f"half up: keeping {', '.join(live)}, starting the rest"] if live else [])


def test_a_server_that_dies_takes_down_what_this_start_began_and_nothing_else(
    settings: Settings, toy: Toys
) -> None:
    before, pids = up(settings), toy.pids()
    for name in ("mlflow", "ray"):
        toy.kill(name)
    toy.commands["mlflow"] = [
        sys.executable,
        "-IS",
        "-c",
        "raise SystemExit('no such table: runs')",
    ]
    said: list[str] = []
    with pytest.raises(PlatformError, match=r"mlflow ended .* 1 .*\n.*no such table: runs"):
        up(settings, said.append)
    assert not [line for line in said if "took a port" in line]
    assert toy.pids() == {name: pids[name] for name in ("prefect", "worker", "reconciler")}
    temporary = {Path(before.ray_temp), Path(written(settings).ray_temp)}
    assert [folder for folder in temporary if folder.exists()] == []
    toy.commands.clear()
    assert {p.name for p in up(settings).processes} == set(COMPONENTS)


def written(settings: Settings) -> Platform:
    platform = record.read(settings.home)
    assert platform is not None
    return platform


def test_serve_that_cannot_start_is_told_and_the_platform_is_not_up(
    settings: Settings, toy: Toys
) -> None:
    toy.commands["serve"] = [sys.executable, "-IS", "-c", "raise SystemExit('no proxy')"]
    with pytest.raises(PlatformError, match=r"serve ended with exit status 1[\s\S]*no proxy"):
        up(settings)
    assert (toy.pids(), running(settings)) == ({}, None)


def test_an_interrupted_start_leaves_nothing(settings: Settings, toy: Toys) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("ray ready"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        up(settings, interrupt)
    assert toy.pids() == {}
    assert not Path(written(settings).ray_temp).exists()
    assert status(settings)["state"] == "down"


def test_a_start_that_was_killed_half_way_is_cleaned_up_by_the_next(
    settings: Settings, toy: Toys
) -> None:
    platform = up(settings)
    pids = toy.pids()
    # What a killed `lyceum up` leaves: a plan without processes, and servers that run.
    record.write(settings.home, replace(platform, processes=()))
    again = up(settings)
    assert not set(pids.values()) & set(toy.pids().values())
    assert toy.answering(again) == set(COMPONENTS)
    record.write(settings.home, replace(again, processes=()))
    assert reap(settings) == len(COMPONENTS)
    assert toy.pids() == {}


def test_two_who_start_at_once_get_one_platform(settings: Settings, toy: Toys) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: up(settings), range(2))
    assert one == other
    assert {p.pid for p in one.processes} == set(toy.pids().values())


def test_a_port_that_somebody_takes_meanwhile_is_replaced(
    settings: Settings, toy: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = toy.components
    with socket.socket() as thief:

        def robbed(here: Settings, platform: Platform, inner: InnerPorts) -> list[Component]:
            first = thief.getsockname()[1] == 0
            if first:
                thief.bind(("127.0.0.1", platform.ports.mlflow))
                thief.listen()
            plan = {component.name: component for component in planned(here, platform, inner)}
            if first:
                # The thief takes connections, but it does not answer as MLflow does.
                plan["mlflow"] = replace(plan["mlflow"], ready=lambda: False)
            return list(plan.values())

        monkeypatch.setattr(lifecycle, "components", robbed)
        said: list[str] = []
        platform = up(settings, said.append)
        assert platform.ports.mlflow != thief.getsockname()[1]
    assert "another process took a port meanwhile; starting again on others" in said
    assert toy.answering(platform) == set(COMPONENTS)
    assert {p.pid for p in platform.processes} == set(toy.pids().values())


def test_another_home_is_another_platform(settings: Settings, toy: Toys, tmp_path: Path) -> None:
    mine = up(settings)
    other = replace(settings, home=tmp_path / "other")
    theirs = up(other)
    try:
        assert not set(vars(mine.ports).values()) & set(vars(theirs.ports).values())
        down(other)
        assert running(settings) == mine
        assert not any(psutil.pid_exists(p.pid) for p in theirs.processes)
    finally:
        down(other)
