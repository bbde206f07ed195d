"""From a search's record to its trials, on the Ray at hand: Ray Tune runs them, we remember.

Tune's own state is pickled, and now and then, so that a kill loses what was since:
it goes into a folder that nobody reads. What there is to know stands in the events.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from ray_jobs import manifest, remote, store
from ray_jobs.errors import TrainingError
from ray_jobs.training import events, room
from ray_jobs.training.events import Event
from ray_jobs.training.splits import Splits, check_splits, tables
from ray_jobs.tuning import trials
from ray_jobs.tuning.job import SearchJob
from ray_jobs.tuning.notebook import Notebook
from ray_jobs.tuning.trials import Trial, ranked

logger = logging.getLogger(__name__)

RAY_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # tables of its own, which nobody would read
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
MAX_FAILURES = 2  # times that a lost worker of a trial is replaced


def search(job: SearchJob) -> str:
    """Run a search to its end on the Ray this process has joined; a digest of what it found.

    Raises TrainingError when that cannot be, or when no trial came to a figure.
    """
    first = job.trial(0, {})
    check_splits(first)
    room.must_fit(job.resources, 1, room.nodes())
    attempt = events.next_attempt(job.events)
    events.append(job.events, Event("started", attempt, detail={"trials": job.trials}))
    if not store.exists(job.vocabulary):
        Splits.seen(first, tables(job.train)).note_vocabulary(job.vocabulary)
    notebook = Notebook(job, attempt)
    if not notebook.is_full:
        _run(job, notebook)
        _forget_shards(job)
    found = trials.known(job)
    _must_have_worked(found)
    digest = manifest.digest([trial.as_dict() for trial in found])
    done = Event("finished", attempt, len(found), detail={"digest": digest})
    events.append(job.events, done)
    return digest


def _run(job: SearchJob, notebook: Notebook) -> None:
    for name, value in RAY_TUNE.items():
        os.environ.setdefault(name, value)
    from ray import tune

    from ray_jobs.tuning.asha import Rungs
    from ray_jobs.tuning.searcher import Suggestions
    from ray_jobs.tuning.trial import learn

    rungs = Rungs(job.epochs)
    for number, epoch in rungs.replay(_told_before(job, notebook)).items():
        notebook.stopped_at(number, epoch)
    if notebook.is_full:
        return
    with tempfile.TemporaryDirectory(prefix="search-", ignore_cleanup_errors=True) as folder:
        tuner = tune.Tuner(
            tune.with_resources(learn, _claims(job)),
            tune_config=tune.TuneConfig(
                search_alg=Suggestions(notebook, job.vocabulary),
                scheduler=rungs,
                num_samples=notebook.left,
                max_concurrent_trials=_at_once(job),
                reuse_actors=True,  # a process takes longer to start than a small epoch
            ),
            run_config=tune.RunConfig(
                name=job.name,
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        tuner.fit()


def _told_before(job: SearchJob, notebook: Notebook) -> Iterator[tuple[int, Event]]:
    """Every epoch of every trial so far."""
    for number in notebook.trials:
        for event in events.by_step(events.read(job.trial_events(number))).values():
            yield number, event


def _claims(job: SearchJob) -> dict[str, float]:
    claims = {"cpu": job.resources.worker_cpus, "gpu": job.resources.worker_gpus}
    return {kind: each for kind, each in claims.items() if each} or {"cpu": 0}


def _at_once(job: SearchJob) -> int | None:
    """As many as fit; where they claim nothing, as many as there are CPUs."""
    if job.resources.worker_cpus or job.resources.worker_gpus:
        return None
    return max(1, int(sum(node.get("CPU", 0.0) for node in room.nodes())))


def _forget_shards(job: SearchJob) -> None:
    """Leave no examples on any node's disk."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    uri, task = job.save(), ray.remote(forget)
    places = [NodeAffinitySchedulingStrategy(n["NodeID"], soft=True) for n in nodes if n["Alive"]]
    ray.get([task.options(num_cpus=0, scheduling_strategy=p).remote(uri) for p in places])


def forget(uri: str) -> None:
    """Leave no examples of a search on this node's disk."""
    with remote.patience():
        job = SearchJob.load(uri)
        Splits.of(job.trial(0, {}), job.vocabulary).forget()


def _must_have_worked(found: list[Trial]) -> None:
    if not ranked(found):
        reasons = [trial.error for trial in found if trial.error]
        why = reasons[0] if reasons else "nobody said why"
        raise TrainingError(f"none of {len(found)} trials came to a figure; the first: {why}")
