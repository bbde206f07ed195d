"""Promises of a scoring's run in MLflow: one for each scoring, which ends as the scoring does."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from flows.request import resolve
from ray_jobs.data.clean import CleanTable
from ray_jobs.scoring import Scoring
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tasks import connection
from tasks.run import Run
from tasks.score import recorded

RELEASE = Release("algebra", "knowledge", "a" * 32, "artifact", "d" * 64, [], {}, version="3")
TABLE = CleanTable("clean", "c" * 64, 100, 80, {}, 10, 10, timed=True)


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return connection.connect(f"sqlite:///{tmp_path}/mlflow.db")


def scored(client: MlflowClient, home: Path, out: str, *, breaks: bool = False) -> str:
    """The id of the run of a scoring, which breaks within or does not."""
    run = Run(
        resolve("knowledge", "algebra", "logs", {}, None, None),
        Settings(home=home, key_file=home / "key"),
    )
    asked = Scoring("artifact", RELEASE.digest, "clean", "content", out)
    with recorded(client, run, release=RELEASE, table=TABLE, asked=asked) as run_id:
        if breaks:
            raise KeyboardInterrupt
    return run_id


def test_a_scoring_that_breaks_off_says_so_and_is_the_same_run_when_repeated(
    client: MlflowClient, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        scored(client, tmp_path, "scores", breaks=True)
    experiment = client.get_experiment_by_name("algebra")
    assert experiment is not None
    (broken,) = client.search_runs([experiment.experiment_id])
    assert (broken.info.status, broken.data.tags["error"]) == ("FAILED", "KeyboardInterrupt")
    again = client.get_run(scored(client, tmp_path, "scores"))
    assert again.info.run_id == broken.info.run_id
    assert (again.info.status, "error" in again.data.tags) == ("FINISHED", False)
    assert scored(client, tmp_path, "elsewhere") != again.info.run_id


def test_a_scoring_is_found_by_its_version_and_by_the_data_that_may_be_erased(
    client: MlflowClient, tmp_path: Path
) -> None:
    found = client.get_run(scored(client, tmp_path, "scores")).data
    assert found.tags["kind"] == "score"
    assert found.tags["version_lineage"] == RELEASE.lineage
    assert found.tags["data_digest"] == TABLE.digest
    assert (found.params["version"], found.params["out"]) == ("3", "scores")
