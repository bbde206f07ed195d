"""A small school taken through the stages in this process: a real store, no Prefect and no Ray."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.split import SplitTable
from ray_jobs.families import recipe
from ray_jobs.families.knowledge.networks import rasch
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import Truth, World
from ray_jobs.intervals import Draws
from ray_jobs.recipe import Recipe
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from ray_jobs.training import events, room, submit
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.training.workers import fit_closed_form
from tasks.describe import Described, describe
from tasks.evaluate import Report, evaluated
from tasks.gate import Verdict
from tasks.prepare import clean, ingest, split
from tasks.progress import Progress
from tasks.record import release_of
from tasks.report import Outcome
from tasks.run import Run
from tasks.start import NOT_ASKED, Begun
from tasks.train import Model, train

SCHOOL = World(seed=3, learners=50, items=16, skills=4, answers=16, answers_spread=0.3)
REPLICATES = 20  # of the bootstrap; its width is not tested here


@dataclass(frozen=True)
class Told:
    """What the stages made of one run, and which of them had work to do."""

    run: Run
    snapshot: Snapshot
    clean: CleanTable
    splits: SplitTable
    described: Described
    lineage: str
    model: Model
    report: Report
    worked: set[str]
    heard: list[Event]

    @property
    def release(self) -> Release:
        return release_of(self.run, self.model, self.report, self.lineage, self.clean, self.splits)


def outcome_of(told: Told, *, verdict: Verdict, version: str, **more: Any) -> Outcome:
    """What a run would say of itself that was judged so; of what is not told, nothing."""
    nothing: dict[str, Any] = {"crossing": None, "champion": None, "endpoint": None, "links": {}}
    nothing |= {"begun": Begun(None, NOT_ASKED), "cold": None}
    return Outcome(
        run=told.run,
        lineage=told.lineage,
        clean=told.clean,
        splits=told.splits,
        model=told.model,
        report=told.report,
        verdict=verdict,
        version=version,
        **{"progress": Progress(1), **nothing, **more},
    )


def planned(folder: Path, **settings: str) -> Run:
    """A run of the cheapest recipe on `folder/logs`, with a home of its own."""
    plan: Recipe = replace(recipe("knowledge-smoke"), data=str(folder / "logs"))
    where = Settings(home=folder / "home", key_file=folder / "key")
    return Run(plan.overridden(**settings), where)


def tell(run: Run, champion: Release | None = None, truth: str = "") -> Told:
    """Take a run from its files to its report."""
    heard: list[Event] = []
    snapshot, *ingested = ingest.fn(run)
    table, *cleaned = clean.fn(run, snapshot)
    splits, *divided = split.fn(run, table)
    described, *measured = describe.fn(run, snapshot, table, splits, champion)
    lineage = run.lineage(table, splits)
    model, *trained = train.fn(run, splits, lineage, cluster, heard.append)
    report, *judged = evaluated.fn(run, splits, model, champion, truth)
    cached = {
        "ingest": ingested, "clean": cleaned, "split": divided, "describe": measured,
        "train": trained, "evaluate": judged,
    }  # fmt: skip
    worked = {stage for stage, (kept,) in cached.items() if not kept}
    return Told(
        run, snapshot, table, splits, described, lineage, model, report, worked, heard
    )  # fmt: skip


def school(folder: Path, **changes: Any) -> Truth:
    """The log of a small school in `folder/logs`, and a key beside it."""
    write_key(folder / "key", bytes(32))
    return simulate(replace(SCHOOL, **changes), folder / "logs")


def write_key(path: Path, secret: bytes) -> None:
    """A known key: with another, learners stand in another order."""
    path.write_bytes(base64.b64encode(secret))


@contextlib.contextmanager
def in_process() -> Iterator[None]:
    """Fit at once where Ray would run the job, and draw few replicates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submit, "submit", lambda job, _address: job.save())
        patch.setattr(submit, "wait", _fitted)
        patch.setattr(room, "nodes", lambda: [{"CPU": 64.0}])
        patch.setattr(Draws, "of", partial(Draws.of, replicates=REPLICATES))
        patch.setattr(rasch, "STEPS", rasch.STEPS[:1])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def _fitted(job: TrainJob, uri: str, _address: str, on_event: Callable[[Event], None]) -> None:
    fit_closed_form(uri)
    for event in events.read(job.events):
        on_event(event)


def cluster() -> Cluster:
    """What a run joins; nothing answers there."""
    return Cluster(dashboard="http://nowhere", serve="http://nowhere", lasting=False)
