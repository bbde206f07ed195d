"""Whole runs on a cluster of several nodes: as good as at home, killed, and cancelled."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from ray.job_submission import JobDetails, JobSubmissionClient

from ray_jobs import store
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.training import events
from ray_jobs.training.events import Event
from tests.cluster_parts import Nodes, several
from tests.installation import SCHOOL, Installation
from tests.s3_parts import Server, free_ports, known

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]

SETS = [
    "spec.width=16", "spec.neighbours=8", "budget.learning_rate=0.02", "gate.beat_baseline=false",
    "gate.margin=1", "gate.slice_margin=1", "gate.max_calibration_error=1",
]  # fmt: skip
EPOCHS = 250  # time enough for a command to start again meanwhile


@dataclass
class School:
    """Logs on S3, a cluster that learns from them, and machines that run flows."""

    cluster: Nodes
    s3: Server
    folder: Path
    url: str
    port: int  # of all services of the cluster

    def machine(self, name: str, *, joins: bool = True) -> Installation:
        """A machine of its own, with a store of its own, and one key for all."""
        given = {
            **self.s3.environment,
            "LYCEUM_STORE": f"{self.url}/{name}",
            "LYCEUM_HTTP_PORT": str(self.port),
            "LYCEUM_KEY_FILE": str(self.folder / "key"),
        }
        here = Installation.of(self.folder / name, self.folder, **given)
        here.home.parent.mkdir()
        there = here.environment | self.cluster.joining
        return replace(here, environment=there) if joins else here

    def words(self, epochs: int = EPOCHS, workers: int = 3) -> list[str]:
        words = ["knowledge", "--data", f"{self.url}/logs", "--no-publish"]
        words += [word for setting in SETS for word in ("--set", setting)]
        return [*words, "--set", f"budget.epochs={epochs}", "--workers", str(workers)]

    def started(self, here: Installation, epoch: int) -> subprocess.Popen[str]:
        """A run that has told of an epoch."""
        run = here.start("run", *self.words())
        assert run.stdout is not None
        heard = any(line.startswith(f"train: epoch {epoch} of") for line in run.stdout)
        assert heard, run.communicate()[1]
        return run

    def attempts(self, name: str) -> list[Event]:
        """Each start of the workers of a machine's only training."""
        place = f"{self.url}/{name}/stages/train"
        (path,) = (path for path in store.sizes(place) if path.endswith("events.jsonl"))
        return [event for event in events.read(f"{place}/{path}") if event.kind == "started"]

    def trainings(self) -> list[JobDetails]:
        """The jobs of the cluster, the oldest first."""
        jobs = JobSubmissionClient(self.cluster.dashboard).list_jobs()
        return sorted((j for j in jobs if j.submission_id), key=lambda job: job.start_time or 0)


@pytest.fixture(scope="module")
def school(s3_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    folder, url = tmp_path_factory.mktemp("school"), s3_server.bucket()
    simulate(SCHOOL, folder / "logs")
    with known(**s3_server.environment), several(3, **s3_server.environment) as cluster:
        store.put_folder(folder / "logs", f"{url}/logs")
        yield School(cluster, s3_server, folder, url, free_ports(1)[0])


@pytest.fixture(scope="module")
def undisturbed(school: School) -> dict[str, Any]:
    return school.machine("undisturbed").run(*school.words())


def test_a_run_on_three_nodes_is_as_good_as_runs_on_one(school: School) -> None:
    """Within what another seed makes of it: dropout differs by worker."""
    home = school.machine("home", joins=False)
    alone = [home.run(*school.words(4, 1), "--seed", seed) for seed in "012"]
    there = replace(home, environment=home.environment | school.cluster.joining)
    together = there.run(*school.words(4))
    assert together["train"]["workers"] == 3
    assert together["cached"] == ["ingest", "clean", "split", "describe"]
    for name in ("auc", "log_loss"):
        values = [run["metrics"][name]["value"] for run in alone]
        spread = max(values) - min(values)
        assert min(values) - spread <= together["metrics"][name]["value"] <= max(values) + spread


@pytest.mark.parametrize("moment", [2, 9, 20])
def test_a_flow_that_is_killed_finds_its_training_again(
    school: School, undisturbed: dict[str, Any], moment: int
) -> None:
    here = school.machine(f"killed-{moment}")
    with school.started(here, moment) as run:
        run.kill()
    report = here.run(*school.words())
    (started,) = school.attempts(f"killed-{moment}")  # and no other beside the one that ran on
    assert started.detail["resumed_from"] == 0
    assert report["metrics"] == undisturbed["metrics"]
    each_epoch_is_there_once(here, report)


def each_epoch_is_there_once(here: Installation, report: dict[str, Any]) -> None:
    client = MlflowClient(f"sqlite:///{here.home / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'knowledge'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["lineage"] == report["lineage"]
    for name in ("epoch/validation_loss", "system/node-1/cpu_utilization_percentage"):
        told = client.get_metric_history(run.info.run_id, name)
        assert [metric.step for metric in told] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_cancelled_leaves_no_training_behind(
    school: School, number: signal.Signals
) -> None:
    run = school.started(school.machine(f"cancelled-{number.name}"), 3)
    assert school.trainings()[-1].status == "RUNNING"
    run.send_signal(number)
    until = time.monotonic() + 30
    while not school.trainings()[-1].status.is_terminal():
        assert time.monotonic() < until, "it trains on for nobody"
        time.sleep(0.2)
    assert school.trainings()[-1].status == "STOPPED"
    run.communicate(timeout=60)
    assert run.returncode == 128 + number
    for node in school.cluster.nodes:
        assert not node.named("RayTrainWorker"), "its workers are there yet"
