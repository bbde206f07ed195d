"""A search on a store of its own, and trials that say of themselves what a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray_jobs.recipe import Budget, Resources
from ray_jobs.training import events
from ray_jobs.training.events import Event
from ray_jobs.tuning.job import SearchJob
from ray_jobs.tuning.notebook import Notebook
from ray_jobs.tuning.space import Choice, Range, Space, as_json

SPACE: Space = {
    "spec.width": Choice((8, 16, 32)),
    "spec.dropout": Range(0.0, 0.6),
    "budget.learning_rate": Range(1e-3, 1e-1),
}


def searching(folder: Path, **values: Any) -> SearchJob:
    """A search of six trials, of six epochs each, on tables that need not be there."""
    given: dict[str, Any] = {
        "name": "toy",
        "family": "knowledge",
        "spec": {"name": "lstm", "width": 16, "neighbours": 0, "dropout": 0.2, "blank": 0.1},
        "train": str(folder / "train.parquet"),
        "validation": str(folder / "validation.parquet"),
        "output": str(folder / "search"),
        "seed": 3,
        "trials": 6,
        "space": as_json(SPACE),
        "budget": Budget(epochs=6, batch_cost=512),
        "resources": Resources(),
    }
    return SearchJob(**{**given, **values})


def tells(job: SearchJob, number: int, losses: Sequence[float], *, attempt: int = 1) -> None:
    """A trial's worker starts, goes on behind its last epoch, and learns."""
    uri = job.trial_events(number)
    begin = max(events.by_step(events.read(uri)), default=0)
    events.append(uri, Event("started", attempt, begin))
    for step, loss in enumerate(losses, start=begin + 1):
        figures = {"validation_loss": loss, "seconds": 1.0}
        events.append(uri, Event("epoch", attempt, step, figures))


def begun(notebook: Notebook) -> int:
    """The number of the next trial."""
    given = notebook.next()
    assert given is not None
    return given[0]


def searched(job: SearchJob, plan: Mapping[int, Sequence[float]]) -> None:
    """A whole search, one trial after the other, each with these losses."""
    notebook = Notebook(job, attempt=1)
    for losses in plan.values():
        number = begun(notebook)
        tells(job, number, losses)
        notebook.ended(number)
