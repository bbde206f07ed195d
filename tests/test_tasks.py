"""Between the stages: what is retried, what makes a lineage, what is told of a run."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from prefect import states

from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.errors import ContractError, ServiceError, UsageError
from ray_jobs.families import recipe
from ray_jobs.recipe import Recipe
from ray_jobs.serving import deploy
from ray_jobs.serving.release import Release
from ray_jobs.serving.site import Site
from ray_jobs.settings import Settings
from ray_jobs.training.events import Event
from tasks.gate import Check, Verdict
from tasks.progress import STAGES, Progress
from tasks.provenance import flat
from tasks.publish import publish
from tasks.retry import worth_it
from tasks.run import Run


class Failed:
    """As Prefect hands a failed state over."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self, *, raise_on_failure: bool) -> Exception:
        assert not raise_on_failure
        return self.error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionError("refused"), True),
        (TimeoutError(), True),
        (httpx.ReadTimeout("slow"), True),
        (MlflowException("busy", INTERNAL_ERROR), True),
        (MlflowException("no such", INVALID_PARAMETER_VALUE), False),
        (ContractError("no column"), False),
        (UsageError("no recipe"), False),
        (ServiceError("golden request 1"), False),
        (ValueError("ours"), False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: Exception, again: bool) -> None:
    assert worth_it(None, None, Failed(error)) is again
    assert worth_it(None, None, states.Failed(data=error)) is again


def clean_table(digest: str = "d" * 64) -> CleanTable:
    return CleanTable(
        uri="/store/clean", digest=digest, read=10, kept=9, quarantined={"conflict": 1}, merged=0,
        repeats=0, timed=True,
    )  # fmt: skip


def split_table(**changes: Any) -> SplitTable:
    rows = {"train": 6, "validation": 1, "test": 2}
    usual: dict[str, Any] = {
        "uri": "/store/split", "delivered": False, "rows": rows, "scored": rows, "groups": rows,
        "cut": None, "held_back": 0,
    }  # fmt: skip
    return SplitTable(**{**usual, **changes})


def lineage(plan: Recipe, clean: CleanTable | None = None, **changes: Any) -> str:
    run = Run(plan, Settings(home=Path("/nowhere")))
    return run.lineage(clean or clean_table(), split_table(**changes))


PLAN = recipe("knowledge")


@pytest.mark.parametrize(
    "same",
    [
        replace(PLAN, data="/elsewhere"),
        replace(PLAN, name="nightly"),
        PLAN.overridden(**{"gate.margin": "0.5"}),
        PLAN.overridden(**{"resources.replicas": "3"}),
        replace(PLAN, max_bad_fraction=0.5),
    ],
)
def test_what_leaves_the_model_alone_leaves_the_lineage_alone(same: Recipe) -> None:
    assert lineage(same) == lineage(PLAN)


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, seed=1),
        replace(PLAN, workers=1),
        replace(PLAN, service="other"),
        PLAN.overridden(**{"spec.width": "64"}),
        PLAN.overridden(**{"budget.epochs": "1"}),
        PLAN.overridden(**{"split.test": "0.3"}),
        recipe("knowledge-attention"),
    ],
)
def test_what_changes_the_model_changes_the_lineage(other: Recipe) -> None:
    assert lineage(other) != lineage(PLAN)


def test_other_data_or_another_cut_is_another_lineage() -> None:
    assert lineage(PLAN, clean_table("e" * 64)) != lineage(PLAN)
    assert lineage(PLAN, content="other rows") != lineage(PLAN)


def test_a_stage_is_timed_told_of_and_marked_when_it_was_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress(epochs=2)
    assert progress.kept("ingest", lambda: ("fresh", False)) == "fresh"
    assert progress.kept("clean", lambda: ("kept", True)) == "kept"
    progress.skipped("publish", "no platform is up")
    assert progress.cached == ["clean"]
    assert list(progress.timings_s) == ["ingest", "clean", "publish"]
    texts = [r.getMessage() for r in caplog.records]
    assert any(t.startswith("clean: done") and t.endswith("(from cache)") for t in texts)
    assert "publish: skipped, no platform is up" in texts


def test_a_stage_that_fails_says_so_and_has_no_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress(epochs=1)
    with pytest.raises(ContractError), progress.stage("clean"):
        raise ContractError("no valid row")
    assert caplog.records[-1].getMessage() == "clean: failed"
    assert progress.timings_s == {}


@pytest.mark.parametrize(
    ("end", "states"),
    [(None, ["started", "done"]), (ValueError, ["started", "failed"]),
     (KeyboardInterrupt, ["started", "failed"])],
)  # fmt: skip
def test_a_terminal_is_told_how_every_stage_begins_and_ends(
    caplog: pytest.LogCaptureFixture, end: type[BaseException] | None, states: list[str]
) -> None:
    caplog.set_level(logging.INFO)
    with contextlib.suppress(ValueError, KeyboardInterrupt), Progress(epochs=1).stage("gate"):
        if end:
            raise end
    told = [(r.__dict__["stage"], r.__dict__["state"]) for r in caplog.records]
    assert told == [("gate", state) for state in states]


def test_an_epoch_is_a_line_and_a_share_of_the_stage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress(epochs=4)
    progress.epoch(Event("started", 1))
    progress.epoch(Event("epoch", 1, step=1, metrics={"train_loss": 0.5, "seconds": 2.0}))
    (record,) = caplog.records
    assert record.getMessage() == "train: epoch 1 of 4, train loss 0.5"
    assert record.__dict__["done"] == 0.25
    assert record.__dict__["stage"] in STAGES
    spent = {"data_seconds": 0.5, "compute_seconds": 9.0, "communication_seconds": 0.5}
    progress.epoch(Event("epoch", 1, step=2, metrics={"train_loss": 0.4, **spent}))
    message = "train: epoch 2 of 4, train loss 0.4, data 5%, compute 90%, communication 5%"
    assert caplog.messages[-1] == message


def test_a_verdict_passes_only_when_every_check_does() -> None:
    good, bad = Check("size", True, "1 MB"), Check("latency", False, "p95 900 ms")
    assert Verdict([good]).passed
    assert not Verdict([good, bad]).passed
    assert Verdict([good, bad]).reasons == ["passed: 1 MB", "failed: p95 900 ms"]
    assert Verdict([bad]).as_dict()["checks"][0]["name"] == "latency"


def test_nested_settings_become_dotted_names() -> None:
    assert flat({"budget": {"epochs": 3}, "seed": 0}) == {"budget.epochs": "3", "seed": "0"}


def test_a_release_that_does_not_start_leaves_the_previous_one_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live: list[str] = []

    def start(release: Release, base_url: str, **_: Any) -> str:
        if release.digest == "broken":
            raise ServiceError(f"version {release.version} could not start")
        live.append(release.version)
        return f"{base_url}/{release.service}"

    monkeypatch.setattr(deploy, "deploy", start)
    monkeypatch.setattr(deploy, "is_live", lambda *_: False)
    old = Release("algebra", "knowledge", "l1", "/a", "whole", [], {}, version="1")
    new = replace(old, lineage="l2", version="2")
    at: dict[str, Any] = {"site": Site("", ""), "resources": PLAN.resources, "previous": old}
    there = Cluster("http://here:1", "http://here:2", lasting=True)
    assert publish.fn(new, there, **at) == "http://here:2/algebra"
    with pytest.raises(ServiceError, match="version 3 could not start"):
        publish.fn(replace(new, lineage="l3", version="3", digest="broken"), there, **at)
    assert live == ["2", "1"]
