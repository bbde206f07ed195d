"""Prefect's server of one command: there for its flow and for its last words, and gone with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

CODE = textwrap.dedent("""
    import json, os, sys, time
    from flows.cli.session import session
    from flows.platform import begin_prefect

    ready = begin_prefect(session().settings)
    from prefect import flow, get_run_logger
    from prefect.client.orchestration import get_client

    from tasks.provenance import flow_tags

    @flow
    def story():
        get_run_logger().info("once upon a time")
        print(json.dumps({"url": os.environ["PREFECT_API_URL"], "tags": flow_tags()}), flush=True)
        (HOW)

    ready()
    story()
""")


def command(home: Path, how: str) -> subprocess.Popen[str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PREFECT", "LYCEUM", "RAY"))}
    return subprocess.Popen(
        [sys.executable, "-c", CODE.replace("(HOW)", how)],
        env=kept | {"LYCEUM_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def servers(url: str) -> list[psutil.Process]:
    """The processes that listen where a command said."""
    port = url.rpartition(":")[2].partition("/")[0]
    return [
        found for found in psutil.process_iter(["cmdline"]) if port in (found.info["cmdline"] or [])
    ]


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    found: dict[str, Any] = json.loads(line)
    return found


def kept_logs(home: Path) -> str:
    """What Prefect's database of a home holds, in its write-ahead log as well."""
    files = sorted((home / "prefect").glob("prefect.db*"))
    return "".join(path.read_bytes().decode("utf-8", "replace") for path in files)


def test_a_flow_runs_on_a_server_of_its_command_which_hears_its_last_words(tmp_path: Path) -> None:
    process = command(tmp_path, "assert len(sys.argv)")
    found = told(process)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, ""), err
    assert set(found["tags"]) == {"prefect.flow_run_id"}, "a link would lead to what has ended"
    assert servers(found["url"]) == []
    assert "once upon a time" in kept_logs(tmp_path)


def test_it_ends_with_a_command_that_fails_or_is_told_to_stop(tmp_path: Path) -> None:
    process = command(tmp_path, "raise SystemExit(3)")
    found = told(process)
    process.communicate(timeout=120)
    assert process.returncode == 3
    assert servers(found["url"]) == []


@pytest.mark.slow
def test_what_a_killed_command_left_is_found_by_the_next(tmp_path: Path) -> None:
    process = command(tmp_path, "time.sleep(300)")
    found = told(process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    left = servers(found["url"])
    assert len(left) == 1
    after = command(tmp_path, "assert True")
    assert told(after)["url"]
    assert psutil.wait_procs(left, 20)[1] == []
    after.communicate(timeout=120)


def test_a_server_that_is_named_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.platform import begin_prefect
    from ray_jobs.settings import Settings

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("another was started")

    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setenv("PREFECT_API_URL", "http://there/api")
    begin_prefect(Settings(home=tmp_path))()
    assert os.environ["PREFECT_API_URL"] == "http://there/api"


def test_one_that_does_not_start_says_where_it_wrote_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.platform import ephemeral
    from ray_jobs.errors import PlatformError
    from ray_jobs.settings import Settings

    monkeypatch.setattr(ephemeral, "APP", "nothing.of.this:name")
    for name in ("PREFECT_API_URL", "PREFECT_UI_URL"):
        monkeypatch.setenv(name, "")
    ready = ephemeral.begin_prefect(Settings(home=tmp_path))
    with pytest.raises(PlatformError, match=r"ended with status 1; see (.*)") as caught:
        ready()
    assert "nothing" in Path(str(caught.value).rpartition(" ")[2]).read_text()
