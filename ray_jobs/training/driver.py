"""From a job record to an artifact, on the Ray at hand.

Networks train in Train V2, a closed form is fitted in one Ray task.
A run that was killed goes on from its last checkpoint when it is started
again. A job whose artifact is there is done.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from ray_jobs import artifact, remote, store
from ray_jobs.allocator import ONE_ARENA
from ray_jobs.artifact import Artifact
from ray_jobs.errors import ArtifactError, StoreError, TrainingError
from ray_jobs.families import family
from ray_jobs.recipe import spec_from
from ray_jobs.training import events, room
from ray_jobs.training.job import TrainJob
from ray_jobs.training.splits import Splits, check_splits, tables

logger = logging.getLogger(__name__)

# How often Ray looks at its workers, which ends a training and takes from it. What they
# have to say stands in the events: `ray.train.report` would make each epoch wait for a look.
RAY_TRAIN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
MAX_FAILURES = 4  # times that lost workers are replaced, or done without
MAX_PREEMPTIONS = 100  # times that a node is taken away after notice was given
MAX_START_FAILURES = 10  # minutes that workers wait for a busy cluster


def train(job: TrainJob) -> str:
    """Train a job on the Ray this process is connected to; returns the artifact's digest.

    Raises TrainingError when that cannot be, within seconds where resources lack.
    """
    _must_be_absolute(job)
    known = finished_artifact(job)
    if known is not None:
        logger.info("%s is there already; nothing to train", job.artifact)
        done = events.finished(job.events, known.digest, known.about, reused=True)
        events.append(job.events, done)
        return known.digest
    check_splits(job)
    spec = spec_from(job.spec, family(job.family).specs)
    closed_form = hasattr(spec, "fit")
    nodes = room.nodes()
    least = job.resources.min_workers or job.workers
    room.must_fit(job.resources, 1 if closed_form else least, nodes)
    if len(nodes) == 1:
        # Nobody takes our only node away; the watcher would cost a process.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    if not closed_form:
        Splits.seen(job, tables(job.train)).note_vocabulary()
    digest = _fit(job) if closed_form else _train_network(job)
    store.remove(job.checkpoints)
    logger.info("trained %s: %s", job.artifact, digest)
    return digest


def finished_artifact(job: TrainJob) -> Artifact | None:
    """The job's artifact where it is there and whole."""
    if not store.exists(store.join(job.artifact, artifact.MANIFEST)):
        return None
    try:
        return artifact.fetched(job.artifact)
    except (ArtifactError, StoreError) as error:
        logger.warning("training again: %s", error)
        return None


def _must_be_absolute(job: TrainJob) -> None:
    for uri in (job.train, job.validation, job.output):
        if store.is_local(uri) and not store.local_path(uri).is_absolute():
            raise TrainingError(
                f"{uri} is relative, and a worker's folder is not this one; give an absolute path"
            )


def _fit(job: TrainJob) -> str:
    import ray

    from ray_jobs.training.workers import fit_closed_form

    task = ray.remote(num_cpus=job.resources.worker_cpus)(fit_closed_form)
    try:
        digest: str = ray.get(task.remote(job.save()))
    except ray.exceptions.RayTaskError as error:
        raise TrainingError(f"fitting failed: {_cause(error)}") from error
    return digest


def _train_network(job: TrainJob) -> str:
    for name, value in RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    import ray.train
    from ray.train.torch import TorchTrainer

    from ray_jobs.training import workers

    # Ray's annotations are still those of Train V1.
    train_network: Any = workers.train_network
    trainer = TorchTrainer(
        train_network,
        train_loop_config={"job": job.save()},
        scaling_config=_scaling(job),
        run_config=_run_config(job),
    )
    try:
        result: Any = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"training failed: {_first_failure(error)}") from error
    answer: dict[str, str] = result.return_value
    if "error" in answer:
        raise TrainingError(answer["error"])
    return answer["digest"]


def _scaling(job: TrainJob) -> Any:
    import ray.train

    v2: Any = ray.train  # its annotations are still those of Train V1
    claims = {"CPU": job.resources.worker_cpus}
    if job.resources.worker_gpus:
        claims["GPU"] = job.resources.worker_gpus
    least = job.resources.min_workers
    return v2.ScalingConfig(
        num_workers=(least, job.workers) if least else job.workers,
        elastic_resize_monitor_interval_s=job.resources.resize_s,
        use_gpu=job.resources.worker_gpus > 0,
        resources_per_worker=claims,
    )


def _run_config(job: TrainJob) -> Any:
    import ray.train

    v2: Any = ray.train  # its annotations are still those of Train V1
    path, filesystem = _storage(job.checkpoints)
    return v2.RunConfig(
        name=job.name,
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=v2.FailureConfig(
            max_failures=MAX_FAILURES,
            controller_failure_limit=MAX_START_FAILURES,
            max_preemption_failures=MAX_PREEMPTIONS,
        ),
        worker_runtime_env={"env_vars": ONE_ARENA},
    )


def _storage(uri: str) -> tuple[str, Any]:
    """Where Ray keeps what it notes of a run: through fsspec, as everything on the store."""
    if store.is_local(uri):
        return str(store.local_path(uri).absolute()), None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, path = remote.file_system(uri)
    return path, PyFileSystem(FSSpecHandler(filesystem))


def _first_failure(error: Exception) -> str:
    failures = getattr(error, "worker_failures", None)
    cause = failures[min(failures)] if failures else getattr(error, "controller_failure", error)
    return _cause(cause)


def _cause(error: BaseException) -> str:
    """The one line that matters of an error that crossed processes."""
    inner = getattr(error, "cause", None) or error
    lines = str(inner).strip().splitlines() or [type(inner).__name__]
    return lines[-1]
