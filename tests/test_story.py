"""The story of a run: what follows what, what is left out, and what is told when it breaks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from prefect.client.schemas.actions import ArtifactCreate

from flows.audit import trail
from flows.cli import Interrupted
from flows.pipeline import artifact_key
from flows.request import resolve
from ray_jobs.errors import ContractError, PlatformError, ServiceError, TrainingError, UsageError
from ray_jobs.serving.release import Release
from tasks import register
from tasks.progress import STAGES
from tasks.record import RELEASE
from tasks.register import CHALLENGER, PREVIOUS
from tests.live_parts import Serve, serving
from tests.platform_parts import same_environment
from tests.registry_parts import connected, crowned
from tests.story_parts import Stages, installed

# MLflow's own, not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    with same_environment(), serving(monkeypatch) as stand_in:
        yield stand_in
        assert stand_in.guests == 0, "the run's Ray is left when the run ends, however it ends"


@pytest.fixture
def stages(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Stages:
    """A pipeline on an installation whose Ray lasts."""
    return installed(tmp_path, serve, monkeypatch)


@pytest.fixture
def client(stages: Stages) -> MlflowClient:
    return connected(stages.settings)


def runs(client: MlflowClient) -> list[MlflowRun]:
    """Every run that MLflow was told of."""
    ids = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(ids, order_by=["attributes.start_time ASC"]))


def skipped(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Why stages were left out, by stage."""
    texts = [record.getMessage() for record in caplog.records]
    return dict(text.split(": skipped, ") for text in texts if ": skipped, " in text)


def test_a_first_run_tells_every_stage_in_order_and_ends_with_a_live_champion(
    client: MlflowClient, stages: Stages, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    champions: list[int | None] = []
    stages.serve.on_publish = lambda: champions.append(crowned(client, "algebra"))
    report = stages.run()
    assert stages.began == list(report["timings_s"]) == list(STAGES)
    assert report["cached"] == ["ingest", "clean"]
    assert (report["version"], report["endpoint"]) == ("1", f"{stages.serve.url}/algebra")
    assert (crowned(client, "algebra"), champions) == (1, [None]), "crowned once it answers"
    assert stages.serve.versions() == {"algebra": "1"}
    assert report["links"] == {"service": f"{stages.serve.url}/algebra/docs"}
    assert "train: epoch 1 of 1, train loss 1" in caplog.messages
    assert f"Live at [{report['endpoint']}]" in stages.pages["algebra-report"]


def test_mlflow_holds_one_finished_run_with_each_epoch_once_however_often_it_is_told(
    client: MlflowClient, stages: Stages
) -> None:
    reports = [stages.run(), stages.run()]
    (run,) = runs(client)
    assert run.info.status == "FINISHED"
    assert run.data.tags["lineage"] == reports[0]["lineage"] == reports[1]["lineage"]
    history = client.get_metric_history(run.info.run_id, "epoch/train_loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5)]
    kept = Path(client.download_artifacts(run.info.run_id, "report.json"))
    assert orjson.loads(kept.read_bytes()) == orjson.loads(orjson.dumps(reports[1]))


BREAKS: dict[str, BaseException] = {
    "train": TrainingError("no worker came"),
    "evaluate": ContractError("no scored row"),
    "gate": KeyboardInterrupt(),
    "register": Interrupted(15),
    "publish": ServiceError("service algebra could not start"),
}


@pytest.mark.parametrize("stage", BREAKS)
def test_a_run_that_breaks_says_why_and_changes_neither_champion_nor_service(
    client: MlflowClient, stages: Stages, stage: str
) -> None:
    stages.run()
    stages.fails = {stage: BREAKS[stage]}
    with pytest.raises(type(BREAKS[stage])) as raised:
        stages.run(seed=1)
    assert raised.value is BREAKS[stage]
    assert stages.began == list(STAGES[: STAGES.index(stage) + 1]), "nothing after it"
    first, second = runs(client)
    why = {"gate": "KeyboardInterrupt", "register": "SIGTERM"}.get(stage, str(BREAKS[stage]))
    assert (second.info.status, second.data.tags["error"]) == ("FAILED", why)
    assert first.info.status == "FINISHED"
    assert (crowned(client, "algebra"), crowned(client, "algebra", PREVIOUS)) == (1, None)
    assert stages.serve.versions() == {"algebra": "1"}


def test_a_run_that_breaks_in_training_has_told_of_its_data_before(
    client: MlflowClient, stages: Stages
) -> None:
    stages.fails = {"train": BREAKS["train"]}
    with pytest.raises(TrainingError):
        stages.run()
    (run,) = runs(client)
    page = Path(client.download_artifacts(run.info.run_id, "data/report.html")).read_text()
    assert page.startswith("<!DOCTYPE html>")
    accounts = "10 rows read = 9 kept + 1 quarantined + 0 merged + 0 repeats"
    assert accounts in page
    (shown,) = stages.pages.items()
    assert shown[0] == "algebra-data"
    assert accounts in shown[1]
    assert "report.html" in shown[1]


def test_data_is_compared_with_that_of_the_champion(client: MlflowClient, stages: Stages) -> None:
    stages.run()
    assert stages.described_beside is None
    stages.run(seed=1)
    assert stages.described_beside == "1"


def test_a_broken_run_told_again_is_the_same_run_and_no_failure_any_more(
    client: MlflowClient, stages: Stages
) -> None:
    stages.fails = {"evaluate": ContractError("no scored row")}
    with pytest.raises(ContractError):
        stages.run()
    stages.fails = {}
    stages.run()
    (run,) = runs(client)
    assert (run.info.status, "error" in run.data.tags) == ("FINISHED", False)


@pytest.mark.parametrize("stage", ["ingest", "clean", "split", "describe"])
def test_without_data_mlflow_hears_of_no_run_and_no_ray_is_joined(
    client: MlflowClient, stages: Stages, stage: str
) -> None:
    stages.fails = {stage: ContractError("no valid row")}
    with pytest.raises(ContractError, match="no valid row"):
        stages.run()
    assert runs(client) == []
    assert stages.serve.joined_ever == 0


def test_what_the_gate_stops_is_registered_but_neither_crowned_nor_served(
    client: MlflowClient, stages: Stages, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stages.run()
    stages.passes = False
    report = stages.run(seed=1)
    assert (report["version"], report["endpoint"]) == ("2", None)
    assert report["gate"]["passed"] is False
    assert skipped(caplog) == {"publish": "the gate did not pass"}
    assert (crowned(client, "algebra"), crowned(client, "algebra", CHALLENGER)) == (1, 2)
    assert stages.serve.versions() == {"algebra": "1"}
    assert [run.info.status for run in runs(client)] == ["FINISHED"] * 2, "it did what was asked"


def test_a_better_version_is_compared_with_the_champion_and_takes_its_place(
    client: MlflowClient, stages: Stages
) -> None:
    assert stages.run()["champion"] is None
    assert stages.compared_with is None
    report = stages.run(seed=1)
    assert stages.compared_with == report["champion"]["version"] == "1"
    assert (crowned(client, "algebra"), crowned(client, "algebra", PREVIOUS)) == (2, 1)
    assert stages.serve.versions() == {"algebra": "2"}
    stages.run(seed=2, publish=False)
    assert (crowned(client, "algebra"), register.live(client, "algebra")) == (3, "2")


def test_a_version_that_cannot_go_live_makes_room_for_the_champion_again(
    client: MlflowClient, stages: Stages
) -> None:
    stages.run()
    stages.serve.broken.add(("algebra", "2"))
    with pytest.raises(ServiceError, match="no weights"):
        stages.run(seed=1)
    assert (crowned(client, "algebra"), stages.serve.versions()) == (1, {"algebra": "1"})
    lines = map(orjson.loads, trail(stages.settings).read_text().splitlines())
    told = [(x["act"], x["subject"], x["version"], x["outcome"]) for x in lines]
    assert told == [("publish", "algebra", 1, "done"), ("publish", "algebra", 2, "refused")]


def test_what_cannot_be_written_down_does_not_go_live(client: MlflowClient, stages: Stages) -> None:
    trail(stages.settings).mkdir(parents=True)
    with pytest.raises(PlatformError, match="nothing was done"):
        stages.run()
    assert (crowned(client, "algebra"), stages.serve.versions()) == (None, {})


def test_the_champion_told_again_is_neither_judged_nor_registered_but_put_live(
    client: MlflowClient, stages: Stages, caplog: pytest.LogCaptureFixture
) -> None:
    first = stages.run()
    caplog.set_level(logging.INFO)
    stages.trained_before = True
    stages.serve.live.clear()
    again = stages.run()
    assert stages.began == [
        "ingest", "clean", "split", "describe", "train", "evaluate", "publish",
    ]  # fmt: skip
    why = "version 1 is the champion already"
    assert skipped(caplog) == {"gate": why, "register": why}
    assert stages.compared_with is None, "nobody is compared with itself"
    assert again["gate"]["passed"]
    assert again["gate"]["reasons"] == ["skipped: the candidate is the champion already"]
    assert (again["version"], again["endpoint"]) == (first["version"], first["endpoint"])
    assert list(again["timings_s"]) == list(STAGES)
    assert stages.serve.versions() == {"algebra": "1"}


def test_what_begins_from_the_champion_is_compared_with_a_start_from_nothing(
    client: MlflowClient, stages: Stages
) -> None:
    first = stages.run()
    assert (first["start"]["version"], first["cold_start"], stages.cold) == (None, None, None)
    stages.begins = True
    report = stages.run(seed=1)
    assert stages.began[4:7] == ["train", "cold-start", "evaluate"]
    assert report["start"] == {
        "version": "1",
        "lineage": first["lineage"],
        "why": "so it was told",
    }
    cold = report["cold_start"]
    assert (cold["epochs"], cold["seconds"]) == (9, 18.0)
    assert cold["difference"]["auc"]["value"] == 0.0
    assert "Training began from version 1." in stages.pages["algebra-report"]
    told = runs(client)[-1].data.tags
    assert (told["parent"], told["parent_version"]) == (first["lineage"], "1")
    release = Release.load(client.get_model_version("algebra", "2").tags[RELEASE])
    assert Release.load(release.parent).lineage == first["lineage"]
    assert release.division == {
        "delivered": False, "test": 0.2, "validation": 0.1, "until": 1.0, "cut": None,
        "learner": "",
    }  # fmt: skip


def test_a_start_need_not_be_compared(client: MlflowClient, stages: Stages) -> None:
    stages.run()
    stages.begins = True
    report = stages.run(seed=1, settings={"start.compared": "false"})
    assert "cold-start" not in stages.began
    assert (report["start"]["version"], report["cold_start"]) == ("1", None)


def test_a_run_that_needs_no_ray_joins_none(client: MlflowClient, stages: Stages) -> None:
    stages.run()
    joined, stages.trained_before = stages.serve.joined_ever, True
    stages.run(publish=False)
    assert (joined, stages.serve.joined_ever) == (1, 1)


@pytest.mark.parametrize(
    ("lasting", "asked", "why"),
    [
        (True, {"publish": False}, "not asked for"),
        (False, {}, "no platform is up (lyceum up)"),
        (False, {"publish": False}, "not asked for"),
    ],
)
def test_what_is_not_published_is_champion_and_says_why_it_is_not_live(
    tmp_path: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lasting: bool,
    asked: dict[str, Any],
    why: str,
) -> None:
    caplog.set_level(logging.INFO)
    stages = installed(tmp_path, serve, monkeypatch, lasting=lasting)
    client = connected(stages.settings)
    report = stages.run(**asked)
    assert (report["endpoint"], report["links"]) == (None, {})
    assert skipped(caplog) == {"publish": why}
    assert (crowned(client, "algebra"), serve.versions()) == (1, {})


def test_a_ray_of_the_runs_own_leaves_nothing_even_when_the_run_breaks(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = installed(tmp_path, serve, monkeypatch, lasting=False)
    connected(stages.settings)
    stages.fails = {"gate": ServiceError("went silent")}
    with pytest.raises(ServiceError):
        stages.run()
    assert serve.joined_ever == 1
    assert list((stages.settings.home / "run").glob("run-*")) == []


@settings(max_examples=30, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True))
def test_prefect_takes_the_report_of_any_service_that_a_run_may_have(service: str) -> None:
    try:
        resolve("knowledge", service, "logs", {}, None, None)
    except UsageError:
        assert not re.search("[A-Za-z0-9]", service)
        return
    for key in (artifact_key(service), artifact_key(service, "data")):
        assert ArtifactCreate(key=key).key == key
