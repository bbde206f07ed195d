"""What is written down of a platform: true or refused, and written by one at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.platform import down, record, running, status, up
from flows.platform.record import COMPONENTS, locked, try_locked
from ray_jobs import settings as installation
from ray_jobs.errors import PlatformError, StoreError
from ray_jobs.settings import Settings
from tests.platform_parts import up_here


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def record_file(settings: Settings) -> Path:
    return settings.home / "run" / "platform.json"


def test_a_platform_is_read_as_it_was_written(settings: Settings) -> None:
    assert record.read(settings.home) is None
    written = up_here(settings)
    assert record.read(settings.home) == running(settings) == written
    record.forget(settings.home)
    record.forget(settings.home)
    assert record.read(settings.home) is None


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_platform_runs_only_while_all_of_it_lives(settings: Settings, name: str) -> None:
    up_here(settings, dead=(name,))
    assert running(settings) is None
    told = status(settings)
    assert told["state"] == "degraded"
    assert {p["name"] for p in told["processes"] if p["state"] == "dead"} == {name}


def test_what_a_platform_tells_others_leads_them_to_it(settings: Settings) -> None:
    platform = up_here(settings)
    read = installation.read(platform.environment())
    assert read.ray_address == platform.ray_address
    assert read.mlflow_tracking_uri == platform.mlflow_tracking_uri
    assert read.prefect_api_url == platform.prefect_api_url
    assert read.http_port == platform.ports.http


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("10.1.2.3", "10.1.2.3")])
def test_who_listens_on_every_address_is_reached_on_this_one_and_ray_always_is(
    settings: Settings, host: str, reached: str
) -> None:
    platform = up_here(replace(settings, host=host, console_host=host))
    for url in (platform.services_url, platform.prefect_api_url, platform.prefect_ui):
        assert url.startswith(f"http://{reached}:")
    assert platform.ray_address.startswith("127.0.0.1:")
    assert platform.dashboard_url.startswith("http://127.0.0.1:")


def changed(values: dict[str, Any], **changes: Any) -> str:
    return json.dumps({**values, **changes})


DAMAGE: dict[str, Callable[[dict[str, Any]], str]] = {
    "lacks a field": lambda v: json.dumps({k: v[k] for k in v if k != "since_s"}),
    "lacks its processes": lambda v: json.dumps({k: v[k] for k in v if k != "processes"}),
    "knows more": lambda v: changed(v, colour="red"),
    "another kind of process": lambda v: changed(v, processes=[{"pid": 1}]),
    "another set of ports": lambda v: changed(v, ports={"http": 1}),
    "a list": lambda _: "[]",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", [status, running, up, down])
def test_a_record_of_another_version_is_refused_with_the_way_out(
    settings: Settings, command: Callable[[Settings], Any], damage: str
) -> None:
    up_here(settings)
    path = record_file(settings)
    path.write_text(DAMAGE[damage](json.loads(path.read_text())))
    with pytest.raises(StoreError) as refused:
        command(settings)
    assert str(refused.value).startswith(f"{path} is of another version (")
    assert str(refused.value).endswith("); remove it, then `lyceum down`")
    path.unlink()
    down(settings)


HOLD = """
import sys
from pathlib import Path
from flows.platform.record import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_others_out_until_its_holder_ends_however_it_ends(settings: Settings) -> None:
    command = [sys.executable, "-c", HOLD, str(settings.home)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with try_locked(settings.home) as taken:
            assert not taken
        told = f"another lyceum is starting or stopping the platform of {settings.home}; wait"
        with pytest.raises(PlatformError, match=told), locked(settings.home, limit_s=0):
            pytest.fail("two hold one lock")
        holder.kill()
        holder.wait()
        with locked(settings.home, limit_s=0):
            pass


def test_who_waits_for_a_lock_gets_it_as_soon_as_it_is_free(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as other:
        assert other.enter_context(try_locked(settings.home))
        monkeypatch.setattr(record.time, "sleep", lambda _: other.close())  # type: ignore[attr-defined]
        with locked(settings.home), try_locked(settings.home) as again:
            assert not again
    with pytest.raises(KeyError), locked(settings.home):
        raise KeyError
    with try_locked(settings.home) as free:
        assert free
