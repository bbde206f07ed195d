"""What is told of this machine and its platform: each doubt with its remedy, each address true."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flows.platform import Check, doctor, record, status
from ray_jobs.settings import Settings
from tests.platform_parts import up_here

MODULE = importlib.import_module("flows.platform.doctor")
GIB = 1024**3


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", key_file=tmp_path / "key")


def found(settings: Settings, name: str) -> Check:
    (check,) = [check for check in doctor(settings) if check.name == name]
    assert bool(check.remedy) == (check.state != "ok"), check
    return check


@pytest.mark.parametrize(
    ("name", "gib", "state"),
    [
        ("disk", 5.0, "ok"), ("disk", 4.9, "warn"), ("disk", 1.0, "warn"), ("disk", 0.9, "fail"),
        ("memory", 5.0, "ok"), ("memory", 4.9, "warn"), ("memory", 2.9, "fail"),
        ("shared memory", 0.6, "ok"), ("shared memory", 0.5, "warn"),
    ],
)  # fmt: skip
def test_too_little_room_is_doubted_before_it_stops_a_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, gib: float, state: str
) -> None:
    if name == "shared memory" and not Path("/dev/shm").exists():
        pytest.skip("this system has none")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=gib * GIB))
    free = SimpleNamespace(available=gib * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    check = found(settings, name)
    assert check.state == state
    assert check.found.startswith(f"{gib:.1f} GiB")


@pytest.mark.parametrize(
    ("needed", "wrong"),
    [
        ("typer>=0", ""),
        ("typer>=999", f"typer is {metadata.version('typer')}, expected >=999"),
        ("nothing-like-it>=1; extra == 'worker'", "nothing-like-it is missing"),
        ("nothing-like-it>=1; extra == 'dev'", ""),
        ("nothing-like-it>=1; python_version < '3'", ""),
        ("lyceum[worker]>=999", ""),
    ],
)
def test_a_package_out_of_range_is_named_unless_only_developers_need_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, needed: str, wrong: str
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: ["typer", needed])
    check = found(settings, "packages")
    assert check.state == ("fail" if wrong else "ok")
    assert check.found == (wrong or "2 ranges kept")


def test_an_interpreter_that_is_too_old_is_told_which_one_is_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "metadata", lambda _: {"Requires-Python": ">=4"})
    check = found(settings, "python")
    assert (check.state, check.remedy) == ("fail", "make a fresh environment with Python >=4")


def test_a_home_that_cannot_be_written_is_doubted_where_it_begins_to_exist(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    check = found(replace(settings, home=tmp_path / "new" / "home"), "home")
    assert check.state == "fail"
    assert check.found == f"{tmp_path} cannot be written"
    assert "LYCEUM_HOME" in check.remedy
    assert not settings.home.exists()


def test_without_haproxy_services_are_said_to_be_slower_and_nothing_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "haproxy_available", lambda: False)
    check = found(settings, "haproxy")
    assert (check.state, "slower" in check.found) == ("warn", True)


def test_the_ports_of_the_homes_own_platform_are_no_doubt(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.platform.ports.free", lambda *_: False)
    doubt = found(replace(settings, mlflow_port=5001), "ports")
    assert doubt.state == "fail"
    assert "5001 (MLflow) is taken" in doubt.found
    assert doubt.remedy == "stop what listens there, or change LYCEUM_MLFLOW_PORT"
    up_here(settings)
    assert found(settings, "ports").state == "ok"


@pytest.mark.parametrize(
    ("host", "state"),
    [("127.0.0.1", "ok"), ("127.9.9.9", "ok"), ("localhost", "ok"), ("10.0.0.127", "warn"),
     ("127x.example", "warn"), ("localhost.example", "warn")],
)  # fmt: skip
def test_servers_that_others_could_reach_are_doubted(
    settings: Settings, host: str, state: str
) -> None:
    assert found(replace(settings, host=host), "reach").state == state


@pytest.mark.parametrize(
    ("dead", "state"),
    [((), "up"), (("mlflow",), "degraded"), (record.COMPONENTS, "down")],
)
def test_status_gives_addresses_only_while_something_answers_there(
    settings: Settings, dead: tuple[str, ...], state: str
) -> None:
    assert status(settings)["state"] == "down"
    platform = up_here(settings, dead=dead)
    told = json.loads(json.dumps(status(settings)))
    assert told["state"] == state
    assert told.get("services_url") == (None if state == "down" else platform.services_url)
    assert [p["name"] for p in told["processes"] if p["state"] == "dead"] == (
        [] if state == "down" else list(dead)
    )


def test_mlflow_is_where_a_setting_says_else_its_live_server_else_its_database(
    settings: Settings,
) -> None:
    database = f"sqlite:///{settings.home}/mlflow.db"
    assert status(settings)["mlflow_tracking_uri"] == database
    platform = replace(up_here(settings), mlflow_tracking_uri="http://127.0.0.1:2")
    record.write(settings.home, platform)
    assert status(settings)["mlflow_tracking_uri"] == "http://127.0.0.1:2"
    named = replace(settings, mlflow_tracking_uri="http://tracking.example")
    assert status(named)["mlflow_tracking_uri"] == "http://tracking.example"
    record.write(settings.home, replace(platform, processes=()))
    assert status(settings)["mlflow_tracking_uri"] == database
