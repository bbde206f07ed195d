"""Trainings on several nodes, told by what follows them: where their data lies, and what came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load

from ray_jobs import store
from ray_jobs.recipe import Budget
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.training.submit import submit, wait
from tests.cluster_parts import Nodes
from tests.test_train_ray import answers, job

EXACT = {"name": "lstm", "width": 16, "neighbours": 8, "dropout": 0.0, "blank": 0.0, "hint": 0.0}


def splits_at(url: str, folder: Path, learners: int) -> str:
    """A small world below a URL: two parts of a train split, one of a validation split."""
    for part in range(2):
        (folder / "train").mkdir(exist_ok=True, parents=True)
        answers(learners, seed=part).write_parquet(folder / "train" / f"part-{part:05d}.parquet")
    (folder / "validation").mkdir()
    answers(learners // 3, seed=2).write_parquet(folder / "validation" / "part-00000.parquet")
    store.put_folder(folder, url)
    return url


def asked(splits: str, name: str, **values: Any) -> TrainJob:
    """A training of those splits, an exact one unless told otherwise, that writes beside them."""
    given: dict[str, Any] = {
        "train": f"{splits}/train",
        "validation": f"{splits}/validation",
        "spec": EXACT,
        "budget": Budget(epochs=6, batch_cost=512),
    }
    of = job(Path("/nowhere"), Path(name), **{**given, **values})
    return replace(of, output=f"{splits}/{name}")


def trained(
    of: TrainJob, cluster: Nodes, happens: Callable[[Event], None] = lambda _: None
) -> list[Event]:
    """Submit it and follow it to its end; what was told, `happens` hearing of it as it came."""
    told: list[Event] = []

    def heard(event: Event) -> None:
        told.append(event)
        happens(event)

    wait(of, submit(of, cluster.dashboard), cluster.dashboard, heard)
    return told


def epochs(told: list[Event]) -> list[Event]:
    return [event for event in told if event.kind == "epoch"]


def weights(of: TrainJob) -> dict[str, Any]:
    return load(store.read_bytes(f"{of.artifact}/weights.safetensors"))
