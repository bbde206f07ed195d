"""Training through Ray: submitted, followed, killed, resumed, refused; on one local Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ray_jobs import allocator, artifact
from ray_jobs.errors import TrainingError
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.recipe import Budget, Resources
from ray_jobs.training import driver, events
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.training.local import agent_on_any_port
from ray_jobs.training.submit import submit, wait

pytestmark = pytest.mark.ray

LSTM = {"name": "lstm", "width": 16, "neighbours": 8, "dropout": 0.2}
USUAL_AGENT_PORT = 52365  # another Ray on this machine may hold it
EPOCHS = 25  # of a tenth of a second each: time to be killed in the middle


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """A Ray of our own, two CPUs wide; its dashboard's address."""
    import ray

    # A short path: sockets live below it, and their names may not be long.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        with agent_on_any_port():
            context: Any = ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=True,
                log_to_driver=False,
                _temp_dir=folder,
            )
        assert context.address_info["dashboard_agent_listen_port"] != USUAL_AGENT_PORT
        yield context.dashboard_url
        ray.shutdown()


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world of learners and items, as clean tables."""
    folder = tmp_path_factory.mktemp("splits")
    answers(80, seed=0).write_parquet(folder / "train.parquet")
    answers(20, seed=1).write_parquet(folder / "validation.parquet")
    return folder


def answers(learners: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    difficulty = np.linspace(-2, 2, 20)
    rows: dict[str, list[Any]] = {name: [] for name in CLEAN}
    for learner in range(learners):
        n = int(random.integers(5, 60))
        items = random.integers(0, 20, n)
        chance = 1 / (1 + np.exp(difficulty[items] - random.normal()))
        rows["learner"] += [f"{seed}-{learner}"] * n
        rows["item"] += [f"item {i}" for i in items]
        rows["skills"] += [[f"skill {i % 4}"] for i in items]
        rows["correct"] += (random.random(n) < chance).astype(float).tolist()
        rows["time"] += [float(t) for t in range(n)]
        rows["position"] += range(n)
        rows["bucket"] += [learner] * n
        rows["split"] += [None] * n
        rows["scored"] += [True] * n
        rows["response_s"] += [None] * n
        rows["about"] += [None] * n
    return pl.DataFrame(rows, schema=CLEAN)


def job(splits: Path, output: Path, **values: Any) -> TrainJob:
    given: dict[str, Any] = {
        "name": output.name,
        "family": "knowledge",
        "spec": LSTM,
        "train": str(splits / "train.parquet"),
        "validation": str(splits / "validation.parquet"),
        "output": str(output),
        "seed": 3,
        "workers": 2,
        "budget": Budget(epochs=EPOCHS, batch_cost=512),
        "resources": Resources(),
        "about": {"lineage": "abc"},
    }
    return TrainJob(**{**given, **values})


def weights(of: TrainJob) -> bytes:
    return (Path(of.artifact) / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(
    dashboard: str, splits: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainJob, str, list[Event]]:
    """A job trained from start to end: itself, its artifact's digest, and what was told."""
    asked = job(splits, tmp_path_factory.mktemp("undisturbed"))
    told: list[Event] = []
    digest = wait(asked, submit(asked, dashboard), dashboard, told.append)
    return asked, digest, told


def test_the_thread_that_trains_is_given_the_memory_that_it_freed(
    splits: Path, tmp_path: Path
) -> None:
    asked = driver._run_config(job(splits, tmp_path))
    assert asked.worker_runtime_env["env_vars"] == allocator.ONE_ARENA


def test_a_submitted_job_trains_and_tells_every_epoch_once(
    undisturbed: tuple[TrainJob, str, list[Event]],
) -> None:
    asked, digest, told = undisturbed
    model = artifact.read(Path(asked.artifact))
    assert model.digest == digest
    assert model.about["lineage"] == "abc"
    assert model.about["workers"] == 2
    assert model.about["epochs"] == EPOCHS
    assert [e.kind for e in told] == ["started", *["epoch"] * EPOCHS, "finished"]
    assert [e.step for e in told[1:-1]] == list(range(1, EPOCHS + 1))
    losses = [e.metrics["validation_loss"] for e in told[1:-1]]
    assert model.about["best_epoch"] == losses.index(min(losses)) + 1
    assert min(losses) < losses[0] - 0.02
    assert not Path(asked.checkpoints).exists(), "checkpoints outlive their run"


def test_a_job_joins_the_ray_it_was_submitted_to_and_no_other(
    dashboard: str, undisturbed: tuple[TrainJob, str, list[Event]]
) -> None:
    import ray
    from ray.job_submission import JobSubmissionClient

    submission_id = f"train-{undisturbed[0].name}-1"
    command = JobSubmissionClient(f"http://{dashboard}").get_job_info(submission_id).entrypoint
    assert command.endswith(f" {ray.get_runtime_context().gcs_address}")


def test_a_job_that_is_done_is_not_trained_again(
    dashboard: str, undisturbed: tuple[TrainJob, str, list[Event]]
) -> None:
    asked, digest, _ = undisturbed
    told: list[Event] = []
    assert wait(asked, submit(asked, dashboard), dashboard, told.append) == digest
    assert told[-1].detail["reused"] is True
    assert told[-1].step == EPOCHS
    assert len([e for e in told if e.kind == "started"]) == 1


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(
    undisturbed: tuple[TrainJob, str, list[Event]], splits: Path, tmp_path: Path
) -> None:
    asked = job(splits, tmp_path / "killed")
    uri = asked.save()
    first = start(uri)
    wait_for_epoch(asked, 5, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not Path(asked.artifact).exists()
    second = start(uri)
    assert second.wait(timeout=120) == 0
    starts = [e for e in events.read(asked.events) if e.kind == "started"]
    assert [e.attempt for e in starts] == [1, 2]
    assert starts[1].detail["resumed_from"] > 0
    assert weights(asked) == weights(undisturbed[0])


def start(uri: str) -> subprocess.Popen[bytes]:
    import ray

    address = ray.get_runtime_context().gcs_address
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.train", uri, address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_epoch(of: TrainJob, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while step not in events.by_step(events.read(of.events)):
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_workers_begin_from_another_model_and_learn_on(
    dashboard: str, undisturbed: tuple[TrainJob, str, list[Event]], splits: Path, tmp_path: Path
) -> None:
    before, digest, cold = undisturbed
    asked = job(
        splits,
        tmp_path / "after",
        parent=before.artifact,
        parent_digest=digest,
        kept=0.9,
        budget=Budget(epochs=1, batch_cost=512),
    )
    told: list[Event] = []
    wait(asked, submit(asked, dashboard), dashboard, told.append)
    losses = [e.metrics["validation_loss"] for e in told if e.kind == "epoch"]
    # Nobody who began with nothing is there after an epoch.
    assert losses[0] < cold[1].metrics["validation_loss"] - 0.02
    assert (
        artifact.read(Path(asked.artifact)).vocabulary
        == artifact.read(Path(before.artifact)).vocabulary
    )


def test_a_closed_form_is_fitted_in_one_task(dashboard: str, splits: Path, tmp_path: Path) -> None:
    asked = job(splits, tmp_path / "rasch", spec={"name": "rasch"}, workers=1)
    told: list[Event] = []
    digest = wait(asked, submit(asked, dashboard), dashboard, told.append)
    assert [e.kind for e in told] == ["started", "epoch", "finished"]
    assert told[1].metrics["validation_loss"] < 0.69
    assert artifact.read(Path(asked.artifact)).digest == digest


def test_more_workers_than_there_is_room_for_fail_within_seconds(
    dashboard: str, splits: Path, tmp_path: Path
) -> None:
    asked = job(splits, tmp_path / "crowd", workers=9)
    started = time.monotonic()
    with pytest.raises(TrainingError, match=r"9 workers .* has 2 CPU .*--workers 2"):
        wait(asked, submit(asked, dashboard), dashboard, lambda _: None)
    assert time.monotonic() - started < 60


def test_a_follower_that_is_interrupted_stops_its_job(
    dashboard: str, splits: Path, tmp_path: Path
) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    asked = job(splits, tmp_path / "interrupted", budget=Budget(epochs=100_000))
    submission_id = submit(asked, dashboard)
    assert submit(asked, dashboard) == submission_id, "asked twice, trained twice"

    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait(asked, submission_id, dashboard, interrupt)
    status = JobSubmissionClient(f"http://{dashboard}").get_job_status(submission_id)
    assert status == JobStatus.STOPPED


@pytest.mark.slow
def test_what_cannot_succeed_is_not_tried_again(
    dashboard: str, splits: Path, tmp_path: Path
) -> None:
    asked = job(splits, tmp_path / "explodes")
    asked = replace(asked, budget=replace(asked.budget, learning_rate=1e30))
    with pytest.raises(TrainingError, match="loss is nan"):
        wait(asked, submit(asked, dashboard), dashboard, lambda _: None)
    assert len([e for e in events.read(asked.events) if e.kind == "started"]) == 1


@pytest.mark.slow
def test_a_sharded_job_that_is_killed_goes_on_and_learns_what_a_replicated_one_learns(
    dashboard: str, splits: Path, tmp_path: Path
) -> None:
    exact = {"name": "attention", "width": 16, "neighbours": 8}
    exact |= dict.fromkeys(("dropout", "blank", "hint"), 0.0)
    budget = Budget(epochs=EPOCHS, batch_cost=512, micro_cost=128)
    whole = job(splits, tmp_path / "whole", spec=exact, budget=budget)
    wait(whole, submit(whole, dashboard), dashboard, lambda _: None)
    sharded = job(splits, tmp_path / "sharded", spec=exact, budget=replace(budget, sharded=True))
    wait(sharded, submit(sharded, dashboard), dashboard, lambda _: None)
    killed = replace(sharded, name="killed-sharded", output=str(tmp_path / "killed"))
    first = start(killed.save())
    wait_for_epoch(killed, 5, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert start(killed.save()).wait(timeout=180) == 0
    told = [[e for e in events.read(of.events) if e.kind == "started"] for of in (sharded, killed)]
    assert [len(starts) for starts in told] == [1, 2]
    assert told[1][1].detail["resumed_from"] > 0
    assert weights(killed) == weights(sharded), "it goes on to the same bits"
    assert losses(sharded) == pytest.approx(losses(whole), abs=1e-5)
    one, other = (artifact.read(Path(of.artifact)) for of in (whole, sharded))
    assert one.about["best_epoch"] == other.about["best_epoch"]
    known, found = one.module.state_dict(), other.module.state_dict()
    assert known.keys() == found.keys()
    assert max(float((known[name] - found[name]).abs().max()) for name in known) < 1e-3
    assert not Path(sharded.checkpoints).exists(), "checkpoints outlive their run"


def losses(of: TrainJob) -> list[float]:
    told = events.by_step(events.read(of.events))
    return [told[step].metrics["validation_loss"] for step in range(1, EPOCHS + 1)]
