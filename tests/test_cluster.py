"""Joining a Ray leaves this process as it was: where Ray answers, where it fails, in any thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import serve
from ray._private import parameter

from ray_jobs import cluster
from ray_jobs.cluster import Cluster, joined
from ray_jobs.errors import PlatformError
from ray_jobs.serving import deploy
from ray_jobs.settings import Settings

HOME = Path("/nowhere")
LASTING = Settings(home=HOME, ray_address="1.2.3.4:6379", host="0.0.0.0", http_port=8123)


class Ray:
    """A Ray that can be joined, with the bad habits of the real one."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.agent_port: Any = None
        self.http: tuple[str, int] | None = None
        self.http_config: Any = None  # as Serve keeps it
        self.there = self.handles_signals = True
        self.up = False

    def init(self, **asked: Any) -> Any:
        self.asked, self.up = asked, True
        self.agent_port = parameter.RayParams().dashboard_agent_listen_port
        if self.handles_signals:
            signal.signal(signal.SIGTERM, lambda *_: os.abort())
        if not self.there:
            raise ConnectionError("timed out")
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    def start(self, *, http_options: Any, **_: Any) -> None:
        assert self.up
        self.http = (http_options.host, http_options.port)
        self.http_config = http_options

    def shutdown(self) -> None:
        self.up = False


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    before, here = signal.getsignal(signal.SIGTERM), Ray()
    for name in ("init", "shutdown"):
        monkeypatch.setattr(ray, name, getattr(here, name))
    monkeypatch.setattr(serve, "start", here.start)
    monkeypatch.setattr(deploy, "_get_global_client", lambda: here)
    yield here
    signal.signal(signal.SIGTERM, before)


def test_a_ray_of_ones_own_listens_here_alone_and_ends_with_the_block(here: Ray) -> None:
    with joined(Settings(home=HOME, http_port=8123), folder="/tmp/short", port=4321) as own:
        assert here.up
        assert own == Cluster("http://127.0.0.1:8265", "http://127.0.0.1:4321", lasting=False)
    assert not here.up
    assert here.http == ("127.0.0.1", 4321)
    assert here.asked["address"] == "local", "a bare init joins whatever was started last"
    assert here.asked["_temp_dir"] == "/tmp/short"
    assert here.asked["num_cpus"] == os.cpu_count()
    with joined(Settings(home=HOME, cpus=3), folder="/tmp/short", port=4321):
        assert here.asked["num_cpus"] == 3
    assert {here.asked["_node_ip_address"], here.asked["dashboard_host"]} == {"127.0.0.1"}


def test_on_a_ray_of_ones_own_serve_starts_aside_and_is_waited_for_where_it_is_asked_for(
    here: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, begun = threading.Event(), threading.Event()

    def slow(**options: Any) -> None:
        begun.set()
        may.wait(20)
        here.start(**options)

    monkeypatch.setattr(serve, "start", slow)
    with joined(Settings(home=HOME), folder="/tmp/short", port=4321) as own:
        assert begun.wait(20)
        assert here.http is None, "joining waited for Serve"
        threading.Timer(0.05, may.set).start()
        assert own.services == "http://127.0.0.1:4321"
        assert here.http == ("127.0.0.1", 4321)
    assert not here.up


@pytest.mark.parametrize(("settings", "late"), [(Settings(home=HOME), True), (LASTING, False)])
def test_a_serve_that_cannot_start_is_told_of_at_once_where_a_ray_lasts(
    settings: Settings, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise PlatformError("no Serve")

    monkeypatch.setattr(serve, "start", broken)
    got_in = []

    def visit() -> str:
        with joined(settings, folder="/tmp/short", port=4321) as cluster:
            got_in.append(cluster)
            return cluster.services

    with pytest.raises(PlatformError, match="no Serve"):
        visit()
    assert bool(got_in) is late


def test_a_ray_that_lasts_is_joined_as_it_is(here: Ray) -> None:
    with joined(LASTING) as found:
        assert found == Cluster("http://127.0.0.1:8265", "http://127.0.0.1:8123", lasting=True)
    assert here.asked["address"] == "1.2.3.4:6379"
    fixed = {"num_cpus", "object_store_memory", "_temp_dir", "_node_ip_address"}
    assert not fixed & set(here.asked), "Ray refuses to change what is running"
    assert here.http == ("0.0.0.0", 8123)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (Settings(), "http://127.0.0.1:8000"),
        (Settings(http_port=9000), "http://127.0.0.1:9000"),
        (Settings(host="0.0.0.0"), "http://127.0.0.1:8000"),
        (Settings(host="::", http_port=9000), "http://127.0.0.1:9000"),
        (Settings(host="10.0.0.7"), "http://10.0.0.7:8000"),
    ],
)
def test_services_have_an_address_that_can_be_called(settings: Settings, url: str) -> None:
    assert cluster.services_url(settings) == url


@pytest.mark.parametrize(
    ("settings", "where"), [(LASTING, r"1\.2\.3\.4:6379"), (Settings(home=HOME), "this machine")]
)
def test_a_ray_that_does_not_answer_is_named_and_left(
    settings: Settings, where: str, here: Ray
) -> None:
    here.there = False
    told = pytest.raises(PlatformError, match=f"no Ray answers at {where}: timed out")
    with told, joined(settings, folder="/tmp/short", port=4321):
        pass
    assert not here.up


@pytest.mark.parametrize("there", [True, False])
def test_signals_and_ports_are_ours_again_once_ray_was_asked(there: bool, here: Ray) -> None:
    def mine(*_: object) -> None:
        """Ends this process in its own way."""

    signal.signal(signal.SIGTERM, mine)
    usual = parameter.RayParams().dashboard_agent_listen_port
    here.there = there

    def visit() -> None:
        with joined(LASTING):
            assert signal.getsignal(signal.SIGTERM) is mine
            raise RuntimeError

    with pytest.raises(RuntimeError if there else PlatformError):
        visit()
    assert not here.up
    assert signal.getsignal(signal.SIGTERM) is mine
    assert here.agent_port == 0, "another Ray's agent may hold the usual port"
    assert parameter.RayParams().dashboard_agent_listen_port == usual != 0


def test_a_thread_joins_as_well(here: Ray) -> None:
    here.handles_signals = False  # which only a main thread may

    def join() -> bool:
        with joined(LASTING) as found:
            return found.lasting

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(join).result()
