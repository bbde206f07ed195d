"""The command that trains: which Ray it joins, how it ends, what it refuses before it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from ray_jobs import train
from ray_jobs.errors import TrainingError
from ray_jobs.recipe import Resources
from ray_jobs.training import driver, events, room
from ray_jobs.training.job import TrainJob
from tests.test_train_ray import answers, job


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Rays that were joined, and left again."""
    said: list[str] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda *, address: said.append(address))
    monkeypatch.setattr(ray, "shutdown", lambda: said.append("left"))
    return said


@pytest.fixture
def asked(tmp_path: Path) -> TrainJob:
    for name in ("train", "validation"):
        answers(2, seed=0).write_parquet(tmp_path / f"{name}.parquet")
    return job(tmp_path, tmp_path / "output")


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        ([], "", "local"),
        ([], "1.2.3.4:6379", "1.2.3.4:6379"),
        (["5.6.7.8:6379"], "1.2.3.4:6379", "5.6.7.8:6379"),
    ],
)
def test_the_ray_that_is_named_is_joined_and_left(
    given: list[str], environment: str, address: str, asked: TrainJob, joined: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", environment)
    trained: list[TrainJob] = []
    monkeypatch.setattr(driver, "train", trained.append)
    assert train.main([asked.save(), *given]) == 0
    assert joined == [address, "left"]
    assert trained == [asked]


def test_a_training_that_fails_ends_with_one_line_and_leaves_word(
    asked: TrainJob, joined: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lost = replace(asked, validation="/nowhere/validation.parquet")
    assert train.main([lost.save()]) == 1
    reason = "no validation split at /nowhere/validation.parquet; run the split stage again"
    assert capsys.readouterr().err == f"error: {reason}\n"
    (event,) = events.read(lost.events)
    assert (event.kind, event.attempt, event.detail) == ("failed", 1, {"error": reason})
    assert joined == ["local", "left"]


def test_our_own_fault_leaves_word_too(
    asked: TrainJob, joined: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: TrainJob) -> str:
        raise KeyError

    monkeypatch.setattr(driver, "train", fails)
    events.append(asked.events, events.Event("started", 4))
    with pytest.raises(KeyError):
        train.main([asked.save()])
    last = events.read(asked.events)[-1]
    assert (last.kind, last.attempt, last.detail) == ("failed", 4, {"error": "KeyError"})
    assert joined == ["local", "left"]


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ([], 2, "error: usage: python -m ray_jobs.train JOB_URI [RAY_ADDRESS]\n"),
        (["a", "b", "c"], 2, "error: usage: python -m ray_jobs.train JOB_URI [RAY_ADDRESS]\n"),
        (["/nowhere/job.json"], 1, "error: nothing at /nowhere/job.json\n"),
    ],
)
def test_without_a_job_no_ray_is_joined(
    given: list[str], status: int, said: str, joined: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(given) == status
    assert capsys.readouterr().err == said
    assert joined == []


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_split_that_is_not_there_or_empty_is_told_before_anything_starts(
    name: str, asked: TrainJob, tmp_path: Path
) -> None:
    empty = str(tmp_path / "empty.parquet")
    answers(0, seed=0).write_parquet(empty)
    values: dict[str, Any] = {name: f"{empty}-gone"}
    with pytest.raises(TrainingError, match=f"^no {name} split at {empty}-gone; run the split"):
        driver.train(replace(asked, **values))
    values = {name: empty}
    with pytest.raises(TrainingError, match=f"^the {name} split {empty} has no rows; expected at"):
        driver.train(replace(asked, **values))
    assert not Path(asked.output).exists()


CPUS, GPUS = [{"CPU": 1.0}] * 3, [{"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0}]


@pytest.mark.parametrize(
    ("claims", "nodes", "most"),
    [
        (Resources(worker_cpus=0.75), CPUS, 3),  # and not 4, though 3 / 0.75 is 4
        (Resources(worker_cpus=0.5), CPUS, 6),
        (Resources(worker_gpus=1), GPUS, 2),
        (Resources(worker_cpus=0, worker_gpus=0.5), GPUS, 4),
    ],
)
def test_as_many_workers_as_the_nodes_hold_are_let_in_and_no_more(
    claims: Resources, nodes: list[dict[str, float]], most: int
) -> None:
    room.must_fit(claims, most, nodes)
    with pytest.raises(TrainingError, match=rf"room for {most}; use fewer \(--workers {most}\) or"):
        room.must_fit(claims, most + 1, nodes)


def test_a_ray_that_is_yet_to_start_has_the_processors_that_it_may_use() -> None:
    gpus = Resources(worker_cpus=1, worker_gpus=8)
    room.must_fit_here(gpus, 3, 3)
    with pytest.raises(TrainingError, match=r"4 workers .* the cluster has 3 CPU"):
        room.must_fit_here(gpus, 4, 3)


def test_nodes_that_are_gone_have_no_room(asked: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": n == 1, "Resources": {"CPU": 3.0}} for n in range(3)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    with pytest.raises(TrainingError, match=r"the cluster has 3 CPU on 1 node\(s\), room for 4"):
        driver.train(replace(asked, workers=5))
