"""The demo: it ends with an answer of its own version, and leaves the machine as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows import demo
from flows.cli.session import Session, session
from flows.platform import Platform, record, running
from ray_jobs.errors import LyceumError, PlatformError, ServiceError, TrainingError
from ray_jobs.families import family
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tests.live_parts import Serve, serving
from tests.platform_parts import same_environment, up_here
from tests.test_cli import report


@dataclass
class Machine:
    """Where the demo runs: platforms are written down and forgotten, a run takes no time."""

    serve: Serve
    asked: dict[str, Any]
    fails: LyceumError | None = None
    version: str = "3"  # the one that the run reports

    def up(self, settings: Settings, _: Any) -> Platform:
        return up_here(settings)

    def down(self, settings: Settings, _: Any) -> None:
        record.forget(settings.home)

    def pipeline(self, **asked: Any) -> dict[str, Any]:
        self.asked.update(asked, prefect=os.environ["PREFECT_API_URL"])
        if self.fails:
            raise self.fails
        self.serve.live["algebra"] = Release("algebra", "", "", "", "", [], {}, {}, "3")
        request = {"history": [], "candidates": [{"item": "it's"}]}
        url = f"{self.serve.url}/algebra"
        return report(endpoint=url, request=request, version=self.version)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    kind = replace(family("knowledge"), sample=lambda folder, seed: f"{folder}/{seed}.csv")
    with same_environment(), serving(monkeypatch) as serve:
        monkeypatch.setenv("LYCEUM_HOME", str(tmp_path / "home"))
        monkeypatch.setattr("flows.cli.session.must_answer", lambda _: None)
        stand_in = Machine(serve, {})
        for name in ("up", "down"):
            monkeypatch.setattr(demo, name, getattr(stand_in, name))
        monkeypatch.setattr(demo, "named", lambda _: kind)
        monkeypatch.setattr("flows.pipeline.pipeline", stand_in.pipeline)
        yield stand_in


def shown(at: Session, *, keep: bool = False, data: str | None = None) -> None:
    demo.demonstrate(at, "knowledge", data=data, keep=keep, report=at.settings.home / "report.json")


def test_a_demo_from_nothing_ends_with_an_answer_and_leaves_the_machine_as_it_was(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    at = session()
    before = dict(os.environ)
    shown(at)
    assert running(at.settings) is None
    assert dict(os.environ) == before
    assert machine.asked["prefect"] == "http://127.0.0.1:3/api", "it ran on the platform"
    samples = at.settings.home / "samples" / "knowledge"
    assert (machine.asked["recipe"], machine.asked["data"]) == (
        "knowledge-demo",
        f"{samples}/0.csv",
    )
    assert machine.asked["truth"] == str(samples)
    out = capsys.readouterr().out
    assert f"curl -s {machine.serve.url}/algebra/v1/predict" in out
    assert """'{"history":[],"candidates":[{"item":"it'"'"'s"}]}'""" in out, "for a shell"
    assert 'HTTP 200 {"version":"3"' in out
    assert "lyceum up shows it" in out
    assert orjson.loads((at.settings.home / "report.json").read_bytes())["version"] == "3"


def test_with_data_of_ones_own_there_is_no_truth_to_compare_with(machine: Machine) -> None:
    shown(session(), data="/my/logs")
    assert (machine.asked["data"], machine.asked["truth"]) == ("/my/logs", "")


@pytest.mark.parametrize("fails", [None, TrainingError("no worker came")])
def test_a_platform_that_was_up_stays_up(
    machine: Machine, capsys: pytest.CaptureFixture[str], fails: LyceumError | None
) -> None:
    machine.fails = fails
    up_here(session().settings)
    at = session()
    if fails is None:
        shown(at)
    else:
        with pytest.raises(TrainingError):
            shown(at)
    out = capsys.readouterr().out
    assert ("starting" in out, "stays up" in out) == (False, fails is None)
    assert running(at.settings) is not None
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:3/api"


def test_a_platform_that_is_kept_answers_at_the_links_that_were_shown(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    at = session()
    shown(at, keep=True)
    assert running(at.settings) is not None
    assert "Stop it with: lyceum down" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ({"fails": TrainingError("no worker came")}, "no worker came"),
        ({"version": "4"}, "/algebra/v1/predict did not answer as version 4"),
    ],
)
def test_a_demo_that_fails_says_why_and_stops_the_platform_it_started(
    machine: Machine, broken: dict[str, Any], error: str
) -> None:
    at = session()
    before = dict(os.environ)
    vars(machine).update(broken)
    with pytest.raises((TrainingError, ServiceError), match=error):
        shown(at)
    assert running(at.settings) is None
    assert dict(os.environ) == before


def test_a_platform_that_cannot_start_is_cleaned_up_behind_too(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_up(settings: Settings, _: Any) -> Platform:
        up_here(settings)
        raise PlatformError("ray ended with exit status 1")

    monkeypatch.setattr(demo, "up", half_up)
    at = session()
    with pytest.raises(PlatformError):
        shown(at)
    assert running(at.settings) is None
