"""What lets others change what is served asks for a password, or stays on this machine."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from flows.platform.doctor import doctor
from flows.platform.openness import ASKING, refuse_open
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ASKING.values():
        monkeypatch.delenv(name, raising=False)
    return Settings(home=tmp_path / "home", key_file=tmp_path / "key")


def reach(settings: Settings) -> tuple[str, str]:
    (check,) = (c for c in doctor(settings) if c.name == "reach")
    return check.state, check.found


def test_consoles_are_not_opened_without_their_own_authentication(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_open(replace(settings, host="0.0.0.0"))
    wide = replace(settings, console_host="0.0.0.0")
    with pytest.raises(PlatformError, match=r"Prefect .* and MLflow .* without a password"):
        refuse_open(wide)
    assert reach(wide)[0] == "fail"
    monkeypatch.setenv(ASKING["Prefect"], "admin:word")
    with pytest.raises(PlatformError, match=r"others would reach MLflow \(MLFLOW_AUTH"):
        refuse_open(wide)
    monkeypatch.setenv(ASKING["MLflow"], "/etc/auth.ini")
    refuse_open(wide)
    assert reach(wide) == (
        "ok",
        "MLflow and Prefect listen on 0.0.0.0, which ask for passwords; services on 127.0.0.1",
    )


def test_services_without_tls_are_told_of(settings: Settings, tmp_path: Path) -> None:
    assert reach(settings)[0] == "ok"
    state, found = reach(replace(settings, host="0.0.0.0"))
    assert state == "warn"
    assert "without TLS" in found
    file = tmp_path / "school.pem"
    file.write_text("-----BEGIN PRIVATE KEY-----")
    assert (
        reach(replace(settings, host="0.0.0.0", tls_file=str(file), https_port=free()))[0] == "ok"
    )


def test_a_certificate_that_cannot_be_used_is_told_before_anything_starts(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "school.pem"
    secure = replace(settings, tls_file=str(file), https_port=free())
    with pytest.raises(PlatformError, match="no file that can be read"):
        refuse_open(secure)
    file.write_text("-----BEGIN CERTIFICATE-----")
    with pytest.raises(PlatformError, match="no private key in it"):
        refuse_open(secure)
    file.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----")
    refuse_open(secure)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = replace(secure, https_port=taken.getsockname()[1])
        with pytest.raises(PlatformError, match=r"is taken.*LYCEUM_HTTPS_PORT"):
            refuse_open(busy)
        refuse_open(busy, served=True)


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
