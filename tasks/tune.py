"""Tune: submit the search to Ray, hear of its trials, and hand back what became of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import task

from ray_jobs import code, manifest
from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.recipe import as_dict
from ray_jobs.training import room, submit
from ray_jobs.training.events import Event
from ray_jobs.tuning import trials
from ray_jobs.tuning.job import SearchJob
from ray_jobs.tuning.space import Space, as_json
from ray_jobs.tuning.trials import Trial
from tasks.run import Run


@dataclass(frozen=True)
class Plan:
    """What is searched, and how long."""

    space: Space
    trials: int

    def lineage(self, run: Run, clean: CleanTable, splits: SplitTable) -> str:
        """Digest of all that a search follows from: equal means the same search."""
        facts = {
            "of": run.lineage(clean, splits),
            "space": as_json(self.space),
            "trials": self.trials,
            "code": code.digest("ray_jobs.tune"),
        }
        return manifest.digest(facts)[:32]


@task(name="tune")
def tune(
    run: Run,
    plan: Plan,
    splits: SplitTable,
    lineage: str,
    cluster: Callable[[], Cluster],
    on_event: Callable[[Event], None],
) -> tuple[list[Trial], bool]:
    """Every trial of a search and whether it was over; a cluster is joined only to go on with it.

    `on_event` hears of each trial, of each of its epochs and of its end, those of
    an earlier attempt too.
    """
    inputs = {"lineage": lineage, "splits": splits.content}

    def work(uri: str) -> dict[str, Any]:
        job = search_job(run, plan, splits, lineage, uri)
        address = cluster().dashboard
        room.must_fit(run.recipe.resources, 1, room.nodes())
        submit.wait(job, submit.submit(job, address), address, on_event)
        return {"trials": [trial.as_dict() for trial in trials.known(job)]}

    result, cached = manifest.once(run.store, "tune", inputs, work)
    if cached:
        place = manifest.folder(run.store, "tune", inputs)
        for event in search_job(run, plan, splits, lineage, place).follower().poll():
            on_event(event)
    return [Trial.from_dict(values) for values in result["trials"]], cached


def search_job(run: Run, plan: Plan, splits: SplitTable, lineage: str, uri: str) -> SearchJob:
    """What the entry `python -m ray_jobs.tune` is told; the test split is not among it."""
    recipe = run.recipe
    return SearchJob(
        name=f"{recipe.service}-{lineage[:12]}",
        family=recipe.family,
        spec=as_dict(recipe.spec),
        train=splits.table("train"),
        validation=splits.table("validation"),
        output=uri,
        seed=recipe.seed,
        trials=plan.trials,
        space=as_json(plan.space),
        budget=recipe.budget,
        resources=recipe.resources,
        holder=run.holder,
    )
