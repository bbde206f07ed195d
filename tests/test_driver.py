"""From a job record to its artifact, on a Ray that is this one process.

What trains is the real worker with the real loop; in Ray's place a trainer calls it, loses it
when the story wants so, and replaces it as often as it was asked to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import ray.train.torch
import torch
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError

from ray_jobs import artifact, store
from ray_jobs.errors import TrainingError
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.metrics import KINDS
from ray_jobs.predictor import predict
from ray_jobs.recipe import Budget, Resources
from ray_jobs.training import checkpoint, driver, events, workers
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.training.splits import Splits, tables
from tests.test_train_ray import answers, job

METRICS = KINDS["binary"].metrics

BUDGET = Budget(epochs=4, batch_cost=512, learning_rate=0.05)
ELSEWHERE = {"NodeID": "elsewhere", "Alive": True, "Resources": {"CPU": 9.0}}
HERE = {"NodeID": "here", "Alive": True, "Resources": {"CPU": 1.0, "memory": 1e9}}


class LostError(Exception):
    """A worker whose node went away."""


@dataclass
class Ray:
    """A Ray of one process: its nodes, and after which epochs its only worker is lost."""

    nodes: list[dict[str, Any]] = field(default_factory=lambda: [ELSEWHERE, HERE])
    lost_at: tuple[int, ...] = ()
    rank: int = 0
    reports: int = 0
    scaling: Any = None
    claimed: float = 0.0  # CPUs of a task

    def get_context(self) -> Any:
        return SimpleNamespace(
            get_world_rank=lambda: self.rank,
            get_world_size=lambda: 1,
            get_node_id=lambda: "here",
        )

    def report(self) -> None:
        self.reports += 1
        if self.reports in self.lost_at:
            raise LostError("the node is gone\nno heartbeat for 30 s")

    def remote(self, *, num_cpus: float) -> Any:
        self.claimed = num_cpus
        return lambda task: SimpleNamespace(remote=lambda uri: partial(task, uri))

    def trainer(
        self, loop: Any, *, train_loop_config: Any, scaling_config: Any, run_config: Any
    ) -> Any:
        self.scaling = scaling_config
        return SimpleNamespace(fit=lambda: self.fit(loop, train_loop_config, run_config))

    def fit(self, loop: Any, config: Any, run_config: Any) -> Any:
        note = f"{run_config.storage_path}/{run_config.name}/notes.json"
        if run_config.storage_filesystem is None:
            Path(note).parent.mkdir(parents=True, exist_ok=True)
            Path(note).touch()
        else:
            run_config.storage_filesystem.create_dir(str(Path(note).parent), recursive=True)
            run_config.storage_filesystem.open_output_stream(note).close()
        asked = TrainJob.load(config["job"])
        assert store.exists(store.join(asked.checkpoints, asked.name, "notes.json"))
        for left in reversed(range(1 + run_config.failure_config.max_failures)):
            try:
                return SimpleNamespace(return_value=loop(config))
            except Exception as error:
                if not left:
                    raise WorkerGroupError("", {0: error}) from error
        raise AssertionError


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    here, threads = Ray(), torch.get_num_threads()
    for name in (*driver.RAY_TRAIN, "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(ray, "nodes", lambda: here.nodes)
    monkeypatch.setattr(ray, "get_runtime_context", here.get_context)
    monkeypatch.setattr(ray, "remote", here.remote)
    monkeypatch.setattr(ray, "get", lambda task: task())
    monkeypatch.setattr(ray.train, "get_context", here.get_context)
    report = workers._Worker._report

    def reported(worker: Any, state: Any, figures: dict[str, float]) -> None:
        report(worker, state, figures)
        here.report()

    monkeypatch.setattr(workers._Worker, "_report", reported)
    monkeypatch.setattr(ray.train.torch, "TorchTrainer", here.trainer)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    yield here
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splits")
    answers(30, seed=0).write_parquet(folder / "train.parquet")
    # Outcomes that nothing foretells, so that learning on makes the figures worse.
    chance = pl.col("position").mod(2).cast(pl.Float32).alias("correct")
    unseen = pl.col("item").replace("item 7", "an item that nobody was trained on")
    held_out = answers(10, seed=1).with_columns(chance, unseen)
    held_out.write_parquet(folder / "validation.parquet")
    return folder


@pytest.fixture
def network(splits: Path, tmp_path: Path) -> TrainJob:
    return job(splits, tmp_path / "network", workers=1, budget=BUDGET)


@pytest.fixture
def closed(splits: Path, tmp_path: Path) -> TrainJob:
    return job(splits, tmp_path / "closed", spec={"name": "rasch"}, workers=99)


def weights(of: TrainJob) -> bytes:
    return store.read_bytes(store.join(of.artifact, "weights.safetensors"))


def told(of: TrainJob, kind: str) -> list[Event]:
    return [event for event in events.read(of.events) if event.kind == kind]


def loss_of(model: artifact.Artifact, table: pl.DataFrame) -> float:
    """The log loss per row of a table, by the way that a replica takes."""
    found = predict(model, model.family.examples(table, model.vocabulary))
    return METRICS["log_loss"](table["correct"].to_numpy(), np.concatenate(found))


@pytest.mark.parametrize("kind", ["network", "closed"])
def test_what_is_said_of_a_training_is_true_of_its_artifact(
    kind: str, request: pytest.FixtureRequest, splits: Path
) -> None:
    asked: TrainJob = request.getfixturevalue(kind)
    asked = replace(asked, budget=replace(asked.budget, epochs=12))  # past the best of them
    digest = driver.train(asked)
    model = artifact.read(Path(asked.artifact))
    assert model.digest == digest
    losses = [e.metrics["validation_loss"] for e in told(asked, "epoch")]
    rows = pl.read_parquet(splits / "validation.parquet")
    assert loss_of(model, rows) == pytest.approx(min(losses), abs=1e-5)
    (done,) = told(asked, "finished")
    assert done.detail["digest"] == digest
    assert done.detail["best_epoch"] == 1 + losses.index(min(losses))
    assert kind == "closed" or done.detail["best_epoch"] < done.step, "the last may be the worst"
    assert (done.step, done.metrics["rows_per_s"]) == (len(losses), model.about["rows_per_s"])
    assert (model.about["lineage"], model.about["workers"]) == ("abc", 1)


def test_a_closed_form_is_fitted_to_the_train_split_and_knows_no_other_item(
    closed: TrainJob, splits: Path
) -> None:
    driver.train(closed)
    model = artifact.read(Path(closed.artifact))
    train, validation = (pl.read_parquet(splits / f"{n}.parquet") for n in ("train", "validation"))
    assert model.vocabulary == Vocabulary.of([train])
    for name, tensor in Rasch().fit(train, validation, model.vocabulary).state_dict().items():
        assert torch.equal(tensor, model.module.state_dict()[name])


def test_a_worker_takes_what_it_claims_and_the_threads_of_its_node(
    cluster: Ray, network: TrainJob, closed: TrainJob
) -> None:
    cluster.nodes = [ELSEWHERE, {**HERE, "Resources": {"CPU": 3.0}}]
    for asked in (network, closed):
        driver.train(replace(asked, resources=Resources(worker_cpus=1.5)))
    assert cluster.claimed == 1.5
    assert cluster.scaling.num_workers == 1
    assert cluster.scaling.resources_per_worker == {"CPU": 1.5}
    assert not cluster.scaling.use_gpu
    assert told(network, "started")[0].detail["threads"] == 3


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_checkpoints_and_what_ray_noted_go_when_the_artifact_is_there(
    where: str, network: TrainJob, tmp_path: Path
) -> None:
    if where == "memory":
        network = replace(network, output=f"memory://{tmp_path.name}/network")
    digest = driver.train(network)
    assert not store.exists(network.checkpoints)
    found = driver.finished_artifact(network)
    assert found
    assert found.digest == digest


def test_a_worker_that_is_lost_is_replaced_and_its_model_is_none_the_worse(
    cluster: Ray, network: TrainJob
) -> None:
    driver.train(network)
    cluster.reports, cluster.lost_at = 0, (1, 2)
    unlucky = replace(network, output=f"{network.output}-again")
    driver.train(unlucky)
    assert weights(unlucky) == weights(network)
    begun = [(e.attempt, e.detail["resumed_from"]) for e in told(unlucky, "started")]
    assert begun == [(1, 0), (2, 1), (3, 2)]


def test_a_worker_lost_too_often_is_told_and_the_next_run_goes_on(
    cluster: Ray, network: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.train(network)
    monkeypatch.setattr(driver, "MAX_FAILURES", 2)
    cluster.reports, cluster.lost_at = 0, (1, 2, 3)
    unlucky = replace(network, output=f"{network.output}-again")
    with pytest.raises(TrainingError, match=r"^training failed: no heartbeat for 30 s$"):
        driver.train(unlucky)
    assert driver.finished_artifact(unlucky) is None
    driver.train(unlucky)
    assert weights(unlucky) == weights(network)
    assert told(unlucky, "started")[-1].detail["resumed_from"] == 3


def test_an_epoch_said_but_not_saved_is_done_again_to_the_same_figures(
    cluster: Ray, network: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, times = checkpoint.Uploads.save, iter(range(9))

    def lost_once(uploads: checkpoint.Uploads, state: Any) -> None:
        if next(times) == 1:
            raise LostError
        save(uploads, state)

    monkeypatch.setattr(checkpoint.Uploads, "save", lost_once)
    driver.train(network)
    (first, second) = [e for e in told(network, "epoch") if e.step == 2]
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.metrics["validation_loss"] == second.metrics["validation_loss"]


def test_what_would_fail_again_is_not_tried_again(network: TrainJob) -> None:
    bad = replace(network, budget=replace(BUDGET, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"loss is nan .*learning_rate"):
        driver.train(bad)
    assert len(told(bad, "started")) == 1


def test_only_the_first_worker_writes(cluster: Ray, network: TrainJob) -> None:
    cluster.rank = 1
    Splits.seen(network, tables(network.train)).note_vocabulary()
    assert workers.train_network({"job": network.save()}) == {"digest": ""}
    assert cluster.reports == BUDGET.epochs
    assert {p.name for p in Path(network.output).iterdir()} == {"job.json", "vocabulary.json"}


def test_workers_may_be_fewer_as_far_as_is_allowed(cluster: Ray, network: TrainJob) -> None:
    """There is room for thirteen."""
    driver.train(replace(network, workers=10))
    assert cluster.scaling.num_workers == 10
    of = replace(network, workers=99, output=f"{network.output}-more")
    with pytest.raises(TrainingError, match="room for 13"):
        driver.train(of)
    resources = Resources(min_workers=13, resize_s=5.0)
    driver.train(replace(of, resources=resources))
    assert cluster.scaling.num_workers == (13, 99)
    assert cluster.scaling.elastic_resize_monitor_interval_s == 5.0
    with pytest.raises(TrainingError, match=r"14 workers .* room for 13"):
        driver.train(
            replace(of, name="x", output="/x", resources=replace(resources, min_workers=14))
        )


def test_an_epoch_tells_what_its_node_was_busy_with(cluster: Ray, network: TrainJob) -> None:
    driver.train(network)
    for epoch in told(network, "epoch"):
        assert epoch.metrics["workers"] == 1
        found = {name.removeprefix("system/node-0/"): v for name, v in epoch.metrics.items()}
        for share in ("cpu_utilization_percentage", "system_memory_usage_percentage"):
            assert 0 <= found[share] <= 100
        assert found["network_receive_megabytes"] >= 0


def test_a_model_that_is_there_is_not_trained_again(
    closed: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = driver.train(closed)
    monkeypatch.delattr(ray, "remote")
    assert driver.train(replace(closed, train="/gone", validation="/gone")) == digest
    first, again = told(closed, "finished")
    assert again == replace(first, detail={**first.detail, "reused": True}, time=again.time)
    assert len(told(closed, "started")) == 1


@pytest.mark.parametrize("victim", ["manifest.json", "weights.safetensors", "manifest.sha256"])
def test_a_model_that_is_half_there_is_trained_again(victim: str, closed: TrainJob) -> None:
    driver.train(closed)
    path = Path(closed.artifact, victim)
    for spoil in (path.unlink, lambda: path.write_bytes(path.read_bytes()[:-1])):
        spoil()
        assert driver.finished_artifact(closed) is None
        digest = driver.train(closed)
        assert artifact.read(Path(closed.artifact)).digest == digest
    assert [e.attempt for e in told(closed, "started")] == [1, 2, 3]


def test_a_fit_that_fails_is_told_in_one_line(
    closed: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: str) -> str:
        cause = ValueError("of many lines\nno item has an answer")
        raise RayTaskError("fit_closed_form", "Traceback, and more", cause)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(workers, "fit_closed_form", fails)
    with pytest.raises(TrainingError, match=r"^fitting failed: no item has an answer$"):
        driver.train(closed)
