"""Which ports servers get: what a setting names or nothing, what they had before, or any other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows.platform import ports
from flows.platform.ports import Ports
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def unusual(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server has a usual port, so that the tests disturb nobody's."""
    monkeypatch.setattr(ports, "USUAL", {name: (0, who) for name, (_, who) in ports.USUAL.items()})


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_servers_keep_the_ports_they_had_while_those_are_free(
    settings: Settings, unusual: None, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ports.choose(settings, {})
    assert ports.choose(settings, {}, before) == before
    monkeypatch.setitem(ports.USUAL, "mlflow", (ports.any_free("127.0.0.1"), "MLflow"))
    assert ports.choose(settings, {}, before) == before, "rather than the usual one"
    moved = ports.choose(settings, {}, replace(before, mlflow=taken))
    assert moved.mlflow != taken
    assert replace(moved, mlflow=before.mlflow) == before
    live = {"ray": taken, "dashboard": before.dashboard}
    assert vars(ports.choose(settings, live, before)) == {**vars(before), "ray": taken}


def test_a_port_that_a_setting_names_is_taken_or_refused_and_never_replaced(
    settings: Settings, unusual: None, taken: int
) -> None:
    before = ports.choose(settings, {})
    asked = replace(settings, mlflow_port=ports.any_free("127.0.0.1"))
    assert ports.choose(asked, {}, before) == replace(before, mlflow=asked.mlflow_port)
    with pytest.raises(PlatformError) as refused:
        ports.choose(replace(settings, prefect_port=taken), {}, before)
    assert str(refused.value) == (
        f"port {taken} of 127.0.0.1 is taken, and Prefect should listen there; stop what uses "
        "it, or set LYCEUM_PREFECT_PORT to another port (0: any free one)"
    )
    with pytest.raises(PlatformError, match="Prefect should listen there"):
        ports.choose(replace(asked, prefect_port=asked.mlflow_port), {})


def test_a_port_whose_server_has_just_gone_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert not ports.free(*address)
        with socket.create_connection(address) as client:
            server.accept()[0].close()  # the side that closes first keeps the port for a while
            assert client.recv(1) == b""
    assert ports.free(*address)


def test_the_inner_ports_of_two_rays_differ() -> None:
    inner = vars(ports.inner())
    assert len(set(inner.values())) == len(inner) == 5


def test_a_port_that_is_drawn_is_none_that_another_of_the_platform_will_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = [n for n in range(20_000, 32_768) if ports.free("127.0.0.1", n)][:7]
    monkeypatch.setattr(ports, "OURS", few)
    assert set(vars(ports.inner(few[:2])).values()) == set(few[2:])
    assert ports.any_free("127.0.0.1", few[1:]) == few[0]


def test_only_services_are_reached_from_elsewhere_unless_consoles_are_told_to(
    settings: Settings,
) -> None:
    def heard(at: Settings) -> dict[str, str]:
        return {name: ports.listens_on(at, name) for name in vars(Ports(1, 2, 3, 4, 5, 6))}

    here = dict.fromkeys(ports.USUAL, "127.0.0.1")
    wide = replace(settings, host="0.0.0.0")
    assert heard(wide) == here | {"http": "0.0.0.0"}
    both = replace(wide, console_host="0.0.0.0")
    assert heard(both) == here | dict.fromkeys(("http", "mlflow", "prefect"), "0.0.0.0")
    # What is open speaks TLS; the plain port is for this machine.
    assert heard(replace(wide, tls_file="/some.pem")) == here


def test_a_port_that_is_drawn_is_none_that_a_connection_may_be_given_meanwhile() -> None:
    local = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not local.exists():
        pytest.skip("only Linux tells which ports connections get")
    least = int(local.read_text().split()[0])
    drawn = {ports.any_free("127.0.0.1"), *vars(ports.inner()).values()}
    assert len(drawn) == 6
    assert max(drawn) < least
