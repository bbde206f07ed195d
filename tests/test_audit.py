"""The audit trail: a line for every act, whatever came of it, and no act without one."""

from __future__ import annotations

import getpass
import json
import os
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows import audit, services
from flows.audit import record, trail
from ray_jobs.errors import PlatformError, UsageError
from ray_jobs.settings import Settings
from tests.registry_parts import connected, registered

# MLflow's own, not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def lines(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trail(settings).read_text().splitlines()]


def test_a_line_tells_when_who_did_what_to_what_and_how_it_ended(settings: Settings) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    with record(settings, "promote", "algebra", version=2) as details:
        details["lineage"] = "l"
    (line,) = lines(settings)
    assert 0 <= (datetime.fromisoformat(line.pop("time")) - before).total_seconds() < 10
    assert line == {
        "version": 2,
        "lineage": "l",
        "who": getpass.getuser(),
        "act": "promote",
        "subject": "algebra",
        "outcome": "done",
    }


def test_who_acts_is_known_by_the_system_and_not_by_a_variable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody")
    with record(settings, "promote", "algebra"):
        pass
    with record(settings, "reconcile", "algebra", who=audit.RECONCILER):
        pass
    person, machine = lines(settings)
    assert (person["who"] == "somebody", machine["who"]) == (False, "reconciler")


def test_a_user_whom_the_system_has_no_name_for_is_a_number(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_000)
    with record(settings, "promote", "algebra"):
        pass
    assert lines(settings)[0]["who"] == "2000000000"


def test_a_refusal_is_told_with_its_reason_and_goes_on_to_whoever_asked(
    settings: Settings,
) -> None:
    with pytest.raises(UsageError), record(settings, "promote", "algebra"):
        raise UsageError("no version '9'\nat all")
    (line,) = lines(settings)
    assert (line["outcome"], line["reason"]) == ("refused", "no version '9'\nat all")


@pytest.mark.parametrize("error", [ValueError("ann@school.example"), KeyboardInterrupt("ann")])
def test_of_what_broke_only_the_kind_is_told_since_its_words_may_name_somebody(
    settings: Settings, error: BaseException
) -> None:
    with pytest.raises(type(error)), record(settings, "erase", "a learner"):
        raise error
    (line,) = lines(settings)
    assert (line["outcome"], line["reason"]) == ("failed", type(error).__name__)
    assert "ann" not in trail(settings).read_text()


def test_the_trail_is_for_its_owner_alone(settings: Settings) -> None:
    before = os.umask(0)
    try:
        with record(settings, "promote", "algebra"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(trail(settings).stat().st_mode) == 0o600
    assert stat.S_IMODE(trail(settings).parent.stat().st_mode) == 0o700


WRITE = """
import sys
from pathlib import Path
from flows.audit import record
from ray_jobs.settings import Settings
for number in range(200):
    with record(Settings(home=Path(sys.argv[1])), "promote", sys.argv[2] * 500, number=number):
        pass
"""


def test_lines_of_many_who_write_at_once_stay_whole(settings: Settings) -> None:
    command = [sys.executable, "-c", WRITE, str(settings.home)]
    writers = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    told = [(line["subject"][0], line["number"]) for line in lines(settings)]
    assert sorted(told) == [(name, number) for name in "abc" for number in range(200)]


def test_a_line_that_a_crash_cut_off_spoils_no_other(settings: Settings) -> None:
    with record(settings, "promote", "algebra"):
        pass
    with trail(settings).open("ab") as file:
        file.write(b'{"time": "20')
    with record(settings, "rollback", "algebra"):
        pass
    first, torn, last = trail(settings).read_text().splitlines()
    assert (json.loads(first)["act"], torn, json.loads(last)["act"]) == (
        "promote", '{"time": "20', "rollback",
    )  # fmt: skip


def full(*_: object, **__: object) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("broken", [(os, "open"), (tempfile, "TemporaryFile")])
def test_where_no_line_can_be_written_nothing_is_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, broken: tuple[Any, str]
) -> None:
    monkeypatch.setattr(*broken, full)
    told = r"audit trail .*audit\.jsonl cannot be written: .*No space left.*; nothing was done"
    with pytest.raises(PlatformError, match=told), record(settings, "promote", "algebra"):
        pytest.fail("it was done")


def test_a_folder_in_the_place_of_the_trail_stops_the_act_too(settings: Settings) -> None:
    trail(settings).mkdir(parents=True)
    with pytest.raises(PlatformError, match="nothing was done"), record(settings, "a", "b"):
        pytest.fail("it was done")


@pytest.mark.parametrize("write", [full, lambda *_: 3])
def test_a_disk_that_fills_up_meanwhile_is_told_with_what_was_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    told = r"promote of algebra is done, but the audit trail .* could not be told: .*(left|full)"
    with pytest.raises(PlatformError, match=told), record(settings, "promote", "algebra"):
        monkeypatch.setattr(os, "write", write)


def test_promoting_and_rolling_back_leave_a_line_each_also_when_they_are_refused(
    settings: Settings,
) -> None:
    client = connected(settings)
    registered(client, settings, "algebra", 2)
    for version in (1, 2):
        services.promote(settings, "algebra", version)
    services.rollback(settings, "algebra")
    for version, name in ((9, "algebra"), (1, "nobody")):
        with pytest.raises(UsageError):
            services.promote(settings, name, version)
    told = [(x["act"], x["subject"], x.get("version"), x["outcome"]) for x in lines(settings)]
    assert told == [
        ("promote", "algebra", 1, "done"),
        ("promote", "algebra", 2, "done"),
        ("rollback", "algebra", 1, "done"),
        ("promote", "algebra", 9, "refused"),
        ("promote", "nobody", 1, "refused"),
    ]
    assert "no version '9'" in lines(settings)[3]["reason"]


def test_nobody_is_crowned_without_a_line(settings: Settings) -> None:
    client = connected(settings)
    registered(client, settings, "algebra", 1)
    trail(settings).mkdir(parents=True)
    with pytest.raises(PlatformError, match="nothing was done"):
        services.promote(settings, "algebra", 1)
    assert client.get_registered_model("algebra").aliases == {}
