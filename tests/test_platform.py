"""The platform on one machine: all of it answers, part of it comes back, nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.platform import (
    Check,
    Platform,
    doctor,
    down,
    embedded,
    environment,
    reap,
    running,
    status,
    up,
)
from flows.platform import ports as port
from flows.platform.components import Component
from flows.platform.environment import prepare, ray_token
from flows.platform.processes import MARK, Process, marked, platform_mark
from flows.platform.record import COMPONENTS, try_locked
from flows.platform.starting import start_all
from flows.schedule import schedule
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings

TOY = """
from pathlib import Path
from prefect import flow
import os

@flow(name="toy")
def pipeline(recipe: str, service: str | None = None, data: str | None = None,
             settings: dict[str, str] | None = None):
    names = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "LYCEUM_HOME")
    lines = [recipe, str(settings), *(f"{n}={os.environ[n]}" for n in names)]
    Path(__file__).with_name("fired").write_text("\\n".join(lines))
"""
SCHEDULE = """
import json, sys
from pathlib import Path
from flows.schedule import schedule
from ray_jobs.settings import Settings
made = schedule(Settings(home=Path(sys.argv[1])), "smoke", "* * * * *",
                overrides={"budget.epochs": "1"}, entrypoint="toy_pipeline:pipeline")
print(json.dumps(made.deployment_id))
"""


def in_python(code: str, *words: str, variables: dict[str, str] | None = None) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=os.environ | (variables or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def everything(settings: Settings) -> list[psutil.Process]:
    return marked(settings.home, lambda _mark: True)


def eventually(holds: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", key_file=tmp_path / "key")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


# A platform that is up, shared by the tests below in the order they are written.


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("platform")
    (folder / "toy_pipeline.py").write_text(TOY)
    settings = Settings(home=folder / "home", key_file=folder / "key", cpus=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield settings
        down(settings)


@pytest.fixture(scope="module")
def platform(installation: Settings) -> Platform:
    return up(installation)


@pytest.mark.platform
def test_every_server_answers_once_up_returns(installation: Settings, platform: Platform) -> None:
    token = {"Authorization": f"Bearer {ray_token(installation.home)}"}
    assert httpx.get(f"{platform.prefect_api_url}/health").json() is True
    assert httpx.get(f"{platform.mlflow_tracking_uri}/health").text == "OK"
    assert httpx.get(f"{platform.dashboard_url}/api/version", headers=token).is_success
    assert httpx.get(f"{platform.services_url}/nothing").status_code == 404
    # Scheduled now, since it takes up to a minute; the test of schedules waits for it.
    in_python(SCHEDULE, str(installation.home), variables=environment(installation))


@pytest.mark.platform
def test_rays_dashboard_refuses_who_has_no_token(platform: Platform) -> None:
    assert httpx.get(f"{platform.dashboard_url}/api/jobs/").status_code == 401


@pytest.mark.platform
def test_up_again_starts_nothing(installation: Settings, platform: Platform) -> None:
    before = {p.pid for p in everything(installation)}
    lines: list[str] = []
    assert up(installation, lines.append) == platform
    assert lines == ["already up"]
    assert before <= {p.pid for p in everything(installation)}


@pytest.mark.platform
def test_nothing_listens_beyond_this_machine(installation: Settings, platform: Platform) -> None:
    listening = {
        (process.name(), connection.laddr.ip)
        for process in everything(installation)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"haproxy"} <= {name for name, _ in listening} or sys.platform != "linux"
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening


@pytest.mark.platform
def test_the_platform_takes_less_than_half_of_five_gib(
    installation: Settings, platform: Platform
) -> None:
    shares = [p.memory_full_info().pss for p in everything(installation)]
    assert sum(shares) < 2.5 * 1024**3


@pytest.mark.platform
def test_status_says_where_everything_is_in_json(
    installation: Settings, platform: Platform
) -> None:
    told = json.loads(json.dumps(status(installation)))
    assert told["state"] == "up"
    assert told["mlflow_tracking_uri"] == platform.mlflow_tracking_uri
    assert {p["name"] for p in told["processes"]} == set(COMPONENTS)


@pytest.mark.platform
def test_up_brings_back_what_died_and_keeps_what_lives(
    installation: Settings, platform: Platform
) -> None:
    pids = {p.name: p.pid for p in platform.processes}
    os.kill(pids["mlflow"], signal.SIGKILL)
    assert eventually(lambda: status(installation)["state"] == "degraded", 5)
    assert running(installation) is None
    again = up(installation)
    now = {p.name: p.pid for p in again.processes}
    assert now["mlflow"] != pids["mlflow"]
    others = set(COMPONENTS) - {"mlflow"}
    assert {n: now[n] for n in others} == {n: pids[n] for n in others}
    assert again.mlflow_tracking_uri == platform.mlflow_tracking_uri
    assert httpx.get(f"{again.mlflow_tracking_uri}/health").text == "OK"


@pytest.mark.platform
def test_a_schedule_of_every_minute_fires_on_the_platform(
    installation: Settings, platform: Platform
) -> None:
    fired = installation.home.parent / "fired"
    assert eventually(fired.exists, 75), (installation.home / "logs/prefect.log").read_text()
    assert eventually(lambda: "Completed" in _states(platform), 10), _states(platform)
    assert fired.read_text().splitlines() == [
        "smoke",
        "{'budget.epochs': '1'}",
        f"PREFECT_API_URL={platform.prefect_api_url}",
        f"MLFLOW_TRACKING_URI={platform.mlflow_tracking_uri}",
        f"RAY_ADDRESS={platform.ray_address}",
        f"LYCEUM_HOME={installation.home}",
    ]


def _states(platform: Platform) -> set[str]:
    runs = httpx.post(f"{platform.prefect_api_url}/flow_runs/filter", json={}).json()
    return {run["state_name"] for run in runs}


@pytest.mark.platform
def test_down_leaves_nothing_even_when_ray_and_haproxy_were_killed(
    installation: Settings, platform: Platform
) -> None:
    assert Path(platform.ray_temp).is_dir()
    started = everything(installation)
    ray = next(p.pid for p in platform.processes if p.name == "ray")
    for pid in (ray, *(p.pid for p in started if p.name() == "haproxy")):
        os.kill(pid, signal.SIGKILL)
    down(installation)
    assert everything(installation) == []
    assert [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert all(port.free("127.0.0.1", number) for number in vars(platform.ports).values())
    assert not Path(platform.ray_temp).exists()
    assert status(installation)["state"] == "down"
    down(installation)


# Without a platform.


def test_down_where_nothing_ever_ran_makes_nothing(settings: Settings) -> None:
    down(settings)
    assert reap(settings) == 0
    assert not settings.home.exists()


def test_a_port_that_was_asked_for_and_is_taken_stops_up(
    settings: Settings, taken_port: int
) -> None:
    with pytest.raises(PlatformError, match=rf"{taken_port}.*MLflow.*LYCEUM_MLFLOW_PORT"):
        up(replace(settings, mlflow_port=taken_port))
    assert everything(settings) == []


def test_a_usual_port_that_is_taken_is_replaced(
    settings: Settings, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(port.USUAL, "mlflow", (taken_port, "MLflow"))
    chosen = vars(port.choose(settings, {}))
    assert chosen["mlflow"] != taken_port
    assert len(set(chosen.values())) == len(chosen)


def test_a_schedule_without_a_platform_says_how_to_start_one(settings: Settings) -> None:
    with pytest.raises(PlatformError, match="lyceum up"):
        schedule(settings, "smoke", "0 3 * * *")


def test_many_who_prepare_a_home_at_once_share_one_token(tmp_path: Path) -> None:
    def token(home: Path) -> str:
        prepare(home)
        return ray_token(home)

    with ThreadPoolExecutor(8) as pool:
        for home in (tmp_path / str(i) for i in range(20)):
            (found,) = set(pool.map(token, [home] * 8))
            assert len(found) == 64
            assert sorted(p.name for p in (home / "run").iterdir()) == ["ray_token"]


def test_servers_named_elsewhere_are_not_started_here(settings: Settings) -> None:
    with pytest.raises(PlatformError, match="unset MLFLOW_TRACKING_URI"):
        up(replace(settings, mlflow_tracking_uri="http://tracking.example:5000"))


def test_a_server_that_dies_while_starting_is_told_with_its_last_words(tmp_path: Path) -> None:
    prepare(tmp_path)
    dying = Component(
        name="prefect",
        command=[sys.executable, "-c", "print('the database is locked'); raise SystemExit(3)"],
        environment=dict(os.environ),
        ready=lambda: False,
        where="nowhere",
    )
    with pytest.raises(PlatformError, match=r"prefect ended with exit status 3[\s\S]*is locked"):
        start_all(tmp_path, [dying], print)


def test_a_pid_used_again_is_not_the_process_of_before() -> None:
    here = Process.of("here", os.getpid())
    assert here.alive
    assert not replace(here, started_s=here.started_s - 60).alive


RUN = """
import os, subprocess, sys, time
from pathlib import Path
from flows.platform import embedded
from ray_jobs.settings import Settings
with embedded(Settings(home=Path(sys.argv[1]))) as own:
    os.environ.update(own.environment)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                             start_new_session=True)
    print(child.pid, own.ray_temp, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def start_run(settings: Settings) -> Iterator[Callable[[], tuple[Any, psutil.Process, Path]]]:
    """Starts an embedded run: its process, its child's, and Ray's folder."""
    runs: list[tuple[subprocess.Popen[str], psutil.Process]] = []

    def start() -> tuple[Any, psutil.Process, Path]:
        run = subprocess.Popen(
            [sys.executable, "-c", RUN, str(settings.home)], stdout=subprocess.PIPE, text=True
        )
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        runs.append((run, psutil.Process(int(pid))))
        return run, runs[-1][1], Path(folder)

    yield start
    for run, child in runs:
        run.kill()
        if child.is_running():
            child.kill()
        run.communicate()
    reap(settings)


def test_what_a_killed_run_left_is_reaped_and_a_live_run_is_not(
    settings: Settings, start_run: Callable[[], tuple[Any, psutil.Process, Path]]
) -> None:
    killed, orphan, its_folder = start_run()
    _live, child, folder = start_run()
    killed.kill()
    killed.wait()
    assert orphan.is_running()
    assert reap(settings) == 1
    assert not orphan.is_running()
    assert not its_folder.exists()
    assert child.is_running()
    assert folder.is_dir()
    assert reap(settings) == 0


def test_another_home_and_the_unmarked_are_never_reaped(
    settings: Settings,
    start_run: Callable[[], tuple[Any, psutil.Process, Path]],
    tmp_path: Path,
) -> None:
    killed, orphan, _ = start_run()
    killed.kill()
    killed.wait()
    elsewhere = Settings(home=tmp_path / "elsewhere")
    prepare(elsewhere.home)
    assert reap(elsewhere) == 0
    assert orphan.is_running()


def test_a_run_that_ends_takes_everything_with_it(settings: Settings) -> None:
    with embedded(settings) as own:
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            env=os.environ | own.environment,
        )
        assert Path(own.ray_temp).is_dir()
    child.wait(timeout=5)
    assert not Path(own.ray_temp).exists()
    assert list((settings.home / "run").glob("run-*.json")) == []


def test_a_platform_that_is_just_starting_is_not_reaped(settings: Settings) -> None:
    prepare(settings.home)
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env=os.environ | {MARK: platform_mark(settings.home, "ray")},
    ) as server:
        with try_locked(settings.home) as held:
            assert held
            assert reap(settings) == 0
        assert server.poll() is None
        assert reap(settings) == 1
        server.wait(timeout=5)


def test_rays_folder_leaves_room_for_its_sockets(settings: Settings) -> None:
    with embedded(settings) as own:
        session = "session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
        assert len(f"{own.ray_temp}/{session}") < 107
        for name in ("SOCKET_PATH", "METRICS_SOCKET_PATH"):
            path = Path(own.environment.get(f"RAY_SERVE_HAPROXY_{name}", "/a"))
            assert len(str(path.parent / ("0" * 56) / path.name)) <= 97


def test_none_of_the_three_phones_home(settings: Settings) -> None:
    code = """
from prefect.settings import get_current_settings
from prefect._internal.analytics.enabled import is_telemetry_enabled
from mlflow.telemetry.utils import is_telemetry_disabled
from ray._common.usage.usage_lib import usage_stats_enabled
print(get_current_settings().server.analytics_enabled, is_telemetry_enabled(),
      not is_telemetry_disabled(), usage_stats_enabled())
"""
    prepare(settings.home)
    quiet = environment(settings) | {"CI": ""}
    assert in_python(code, variables=quiet).split() == ["False"] * 4


def test_the_platform_imports_none_of_the_three() -> None:
    code = "import sys, flows.platform; print({'prefect', 'mlflow', 'ray'} & set(sys.modules))"
    assert in_python(code).strip() == "set()"


def test_a_worker_reads_the_settings_this_process_has(settings: Settings) -> None:
    from ray_jobs import settings as installation

    asked = replace(settings, cpus=3, store="s3://bucket/lyceum")
    assert installation.read(environment(asked), folder=settings.home.parent) == asked


def test_the_private_files_of_a_home_are_private(settings: Settings) -> None:
    prepare(settings.home)
    for path in [settings.home / "run", *(settings.home / "run").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def found(settings: Settings, name: str) -> Check:
    return next(check for check in doctor(settings) if check.name == name)


def test_doctor_finds_nothing_wrong_here(settings: Settings) -> None:
    checks = doctor(settings)
    assert [c for c in checks if c.state == "fail"] == []
    assert all(bool(c.remedy) == (c.state != "ok") for c in checks)
    assert not settings.home.exists()


def test_doctor_says_what_to_do_about_a_key_others_can_read(settings: Settings) -> None:
    settings.key_file.write_text("secret")
    settings.key_file.chmod(0o644)
    check = found(settings, "key file")
    assert check.state == "fail"
    assert check.remedy == f"chmod 600 {settings.key_file}"


def test_doctor_tells_a_port_asked_for_from_a_usual_one(
    settings: Settings, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = found(replace(settings, ray_port=taken_port), "ports")
    assert asked.state == "fail"
    assert "LYCEUM_RAY_PORT" in asked.remedy
    monkeypatch.setitem(port.USUAL, "ray", (taken_port, "Ray"))
    assert found(settings, "ports").state == "warn"


def test_doctor_warns_of_servers_the_network_can_reach(settings: Settings) -> None:
    assert found(replace(settings, host="0.0.0.0"), "reach").state == "warn"
