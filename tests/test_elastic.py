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
from tests.nodes_parts import asked, epochs, splits_at, trained
from tests.s3_parts import Server, known

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]

EPOCHS = 30
ELASTIC: dict[str, Any] = {
    "spec": {"name": "lstm", "width": 64, "neighbours": 8, "dropout": 0.2},
    "budget": Budget(epochs=EPOCHS, batch_cost=2048),
    "workers": 3,
    "resources": Resources(worker_cpus=0.75, min_workers=1, resize_s=3.0),
}


@pytest.fixture
def cluster(s3_server: Server) -> Iterator[Nodes]:
    with known(**s3_server.environment), several(3, **s3_server.environment) as nodes:
        yield nodes


@pytest.fixture
def splits(s3_server: Server, cluster: Nodes, tmp_path: Path) -> str:
    return splits_at(s3_server.bucket(), tmp_path / "splits", learners=700)


def test_three_workers_then_one_then_two_learn_what_others_learn(
    cluster: Nodes, splits: str
) -> None:
    of = asked(splits, "elastic", **ELASTIC)
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
                cluster.add()

    told = epochs(trained(of, cluster, happens))
    assert [event.step for event in told] == list(range(1, EPOCHS + 1))
    assert [count for count, _ in groupby(e.metrics["workers"] for e in told)] == [3, 1, 2]
    others = [last_loss(asked(splits, f"seed-{seed}", **ELASTIC), seed) for seed in range(3)]
    spread = max(others) - min(others)
    last = told[-1].metrics["validation_loss"]
    assert min(others) - spread <= last <= max(others) + spread


def last_loss(of: TrainJob, seed: int) -> float:
    """On the validation split, of an undisturbed training by one worker in this process."""
    seeded = replace(of, seed=seed)
    Splits.seen(seeded, tables(seeded.train)).note_vocabulary()
    splits = Splits.of(seeded)
    losses: list[float] = []
    lesson = splits.lesson()
    module = splits.spec.prepare(tables(seeded.train), splits.vocabulary)
    state = State.of(module, lesson.budget, Team())
    run(state, lesson, Team(), lambda _, figures: losses.append(figures["validation_loss"]))
    return losses[-1]
