"""Train: submit the job to Ray, watch its events, and hand back the artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from prefect import task

from ray_jobs import manifest, store
from ray_jobs.artifact import fetched
from ray_jobs.cluster import Cluster
from ray_jobs.data.split import SplitTable
from ray_jobs.errors import ArtifactError
from ray_jobs.recipe import as_dict
from ray_jobs.training import events, room, submit
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from tasks.run import Run


@dataclass(frozen=True)
class Model:
    """A trained artifact on the store."""

    artifact: str
    digest: str
    events: str
    workers: int
    epochs: int
    rows_per_s: float
    seconds: float = 0.0  # that its epochs took


def trained(
    run: Run,
    splits: SplitTable,
    lineage: str,
    cluster: Callable[[], Cluster],
    on_event: Callable[[Event], None],
) -> tuple[Model, bool]:
    """The model of a lineage and whether it was there; a cluster is joined only to make one.

    `on_event` hears of each epoch as it ends, or of all at once where they are over.
    """
    inputs = {"lineage": lineage}

    def work(uri: str) -> dict[str, Any]:
        job = training_job(run, splits, lineage, uri)
        address = cluster().dashboard
        room.must_fit(run.recipe.resources, workers_of(run), room.nodes())
        submit.wait(job, submit.submit(job, address), address, on_event)
        return asdict(_trained(job))

    result, cached = manifest.once(run.store, "train", inputs, work, fault=fault)
    model = Model(**result)
    if cached:
        for event in events.read(model.events):
            on_event(event)
    return model, cached


train = task(name="train")(trained)  # the stage; cross-validation trains without one


def workers_of(run: Run) -> int:
    """For how many there must be room: a closed form is fitted by one."""
    return 1 if hasattr(run.recipe.spec, "fit") else run.recipe.least_workers


def fault(result: dict[str, Any]) -> str:
    """What is wrong with the artifact of a result; empty where it loads."""
    try:
        fetched(result["artifact"])
    except ArtifactError as error:
        store.remove(result["artifact"])
        return str(error)
    return ""


def training_job(run: Run, splits: SplitTable, lineage: str, uri: str) -> TrainJob:
    """What the entry `python -m ray_jobs.train` is told."""
    recipe, parent = run.recipe, run.parent
    about = {"service": recipe.service, "lineage": lineage}
    return TrainJob(
        name=f"{recipe.service}-{lineage[:12]}",
        family=recipe.family,
        spec=as_dict(recipe.spec),
        train=splits.table("train"),
        validation=splits.table("validation"),
        output=uri,
        seed=recipe.seed,
        workers=recipe.workers,
        budget=run.budget,
        resources=recipe.resources,
        about=about if parent is None else about | {"parent": parent.lineage},
        holder=run.holder,
        parent=parent.artifact if parent else "",
        parent_digest=parent.digest if parent else "",
        kept=recipe.start.kept,
    )


def _trained(job: TrainJob) -> Model:
    told = events.read(job.events)
    last = next(e for e in reversed(told) if e.kind == "finished")
    # Of an epoch that was learnt again the last time counts.
    done = {e.step: e for e in told if e.kind == "epoch"}
    return Model(
        artifact=job.artifact,
        digest=str(last.detail["digest"]),
        events=job.events,
        workers=int(last.detail["workers"]),
        epochs=last.step,
        rows_per_s=float(last.metrics.get("rows_per_s", 0.0)),
        seconds=sum(e.metrics["seconds"] for e in done.values()),
    )
