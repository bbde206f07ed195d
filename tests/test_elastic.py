"""Elastic training: nodes go and come, and it goes on with the workers there is room for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.recipe import Budget, Resources
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.training.loop import State, run
from ray_jobs.training.splits import Splits, tables
from ray_jobs.training.team import Team
from tests.cluster_parts import Nodes, several
from tests.nodes_parts import EXACT, asked, epochs, splits_at, trained, weights
from tests.s3_parts import Server, known

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]

EPOCHS = 30
ELASTIC: dict[str, Any] = {
    # So slow that it is still learning in the end: what fits too well lies far apart by seed.
    "budget": Budget(epochs=EPOCHS, batch_cost=8192, learning_rate=5e-4),
    "workers": 3,
    "resources": Resources(worker_cpus=0.75, min_workers=1, resize_s=3.0),
}


@pytest.fixture
def cluster(s3_server: Server) -> Iterator[Nodes]:
    with known(**s3_server.environment), several(3, **s3_server.environment) as nodes:
        yield nodes


@pytest.fixture
def splits(s3_server: Server, cluster: Nodes, tmp_path: Path) -> str:
    return splits_at(s3_server.bucket(), tmp_path / "splits", learners=2000)


def test_three_workers_then_one_then_two_learn_what_one_learns(cluster: Nodes, splits: str) -> None:
    of = asked(splits, "elastic", **ELASTIC, spec={**EXACT, "width": 64})
    resized(cluster, of)
    alone, together = undisturbed(of, seed=of.seed)[0].best, weights(of)
    assert alone.keys() == together.keys()
    assert max(float((alone[k] - together[k]).abs().max()) for k in alone) < 1e-5


def test_with_all_that_is_random_they_end_within_what_seeds_lie_apart(
    cluster: Nodes, splits: str
) -> None:
    of = asked(splits, "elastic", **ELASTIC, spec={"name": "lstm", "width": 64, "neighbours": 8})
    last = resized(cluster, of)
    others = [undisturbed(of, seed)[1] for seed in range(5)]
    spread = max(others) - min(others)
    assert min(others) - spread <= last <= max(others) + spread


def resized(cluster: Nodes, of: TrainJob) -> float:
    """Train with three workers, then one, then two; the last loss on the validation split."""
    lone: list[int] = []  # epochs that one worker did

    def happens(event: Event) -> None:
        if event.kind != "epoch":
            return
        if event.step == 3:
            for _ in range(2):
                cluster.nodes.pop().kill()
        if event.metrics["workers"] == 1:
            lone.append(event.step)
            if len(lone) == 1:
                a_node_comes(cluster)

    told = epochs(trained(of, cluster, happens))
    assert [event.step for event in told] == list(range(1, EPOCHS + 1))
    assert [count for count, _ in groupby(e.metrics["workers"] for e in told)] == [3, 1, 2]
    return told[-1].metrics["validation_loss"]


def a_node_comes(cluster: Nodes) -> None:
    """Who trains alone stands still meanwhile: a fast machine would be done before it is there."""
    (left,) = cluster.nodes
    alone = left.named("RayTrainWorker")
    for process in alone:
        process.suspend()
    cluster.add()
    cluster.wait_for(2)
    for process in alone:
        process.resume()


def undisturbed(of: TrainJob, seed: int) -> tuple[State, float]:
    """Training by one worker in this process, and its last loss on the validation split."""
    seeded = replace(of, seed=seed)
    Splits.seen(seeded, tables(seeded.train)).note_vocabulary()
    splits = Splits.of(seeded)
    lesson = splits.lesson()
    losses: list[float] = []
    state = State.of(splits.network(), lesson.budget, Team())
    run(state, lesson, Team(), lambda _, figures: losses.append(figures["validation_loss"]))
    return state, losses[-1]
