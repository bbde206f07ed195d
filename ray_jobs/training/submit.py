"""Work as a Ray job, a training or a search, seen from whoever asked for it: submit, follow, stop.

The same for a Ray of one's own and for a cluster: both have a dashboard
address. The status of the job is the truth, its events are the story.
"""

from __future__ import annotations

import logging
import re
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ray_jobs import remote
from ray_jobs.errors import TrainingError
from ray_jobs.training.events import Event
from ray_jobs.training.job import Job
from ray_jobs.training.watch import POLL_S, Watch, complaint, reason

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
HOLDER = "lyceum_holder"  # of a job's metadata
LIVES = 3  # of a job that dies without a word


def submit(job: Job, address: str) -> str:
    """Start a job on the Ray whose dashboard is at an address; returns its submission id.

    The id follows from the job's name, so that asking again while it runs
    re-attaches to it instead of training twice. What its holder had begun besides,
    and nobody follows since the holder is here, is stopped.
    """
    client = _client(address)
    uri = job.save()
    _reap(client, job)
    while True:
        known = _attempts(client, job)
        last = max((int(name.rpartition("-")[2]) for name in known), default=0)
        submission_id = f"{_prefix(job)}{last + 1}"
        running = [name for name, status in known.items() if not status.is_terminal()]
        if running:
            logger.info("%s %s is running already; following it", job.work, running[0])
            return running[0]
        try:
            return client.submit_job(
                entrypoint=_entrypoint(job, uri),
                submission_id=submission_id,
                entrypoint_num_cpus=0,
                metadata={HOLDER: job.holder},
            )
        except RuntimeError as error:
            # Somebody else may have submitted the same job a moment before us.
            if submission_id not in _attempts(client, job):
                raise TrainingError(f"Ray at {address} took no job: {error}") from error


def wait(
    job: Job,
    submission_id: str,
    address: str,
    on_event: Callable[[Event], None],
    *,
    start_timeout_s: float = START_TIMEOUT_S,
) -> str:
    """Follow a submitted job to its end; returns the digest of its artifact.

    `on_event` gets every event, each epoch once, before this returns or raises. A
    job that died without a word, as one that was killed, is started again, and
    goes on from its last checkpoint. Raises TrainingError when the job fails. When
    the caller is interrupted, or the job does not start in time, it is stopped.
    """
    follower = job.follower()
    for life in range(1, LIVES + 1):
        watch = Watch(_client(address), submission_id, job.work, on_event, follower)
        try:
            status = watch.to_the_end(start_timeout_s)
        except BaseException:
            _stop(watch.client, submission_id, job.work)
            raise
        last = watch.last
        if status == "SUCCEEDED" and last is not None and last.kind == "finished":
            digest: str = last.detail["digest"]
            return digest
        if life == LIVES or status != "FAILED" or complaint(watch):
            break
        logger.warning("%s %s died without a word; going on with it", job.work, submission_id)
        submission_id = remote.patiently(lambda: submit(job, address))
    raise TrainingError(reason(watch, status))


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    url = address if "://" in address else f"http://{address}"
    try:
        return JobSubmissionClient(url)
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(f"no Ray dashboard answers at {url}: {error}") from error


def _entrypoint(job: Job, uri: str) -> str:
    """The command of the Ray job; it names the Ray that this process has joined, if any.

    What Ray itself puts into a job's RAY_ADDRESS is found by looking through
    the machine's processes, and is another's where two run.
    """
    import ray

    joined = ray.get_runtime_context().gcs_address if ray.is_initialized() else ""
    module = f"ray_jobs.{job.kind}"
    return shlex.join([sys.executable, "-m", module, uri, *filter(None, [joined])])


def _prefix(job: Job) -> str:
    return f"{job.kind}-{job.name}-"


def _attempts(client: JobSubmissionClient, job: Job) -> dict[str, JobStatus]:
    """Every submission of this job so far, with its status."""
    jobs: list[JobDetails] = client.list_jobs()
    mine = re.compile(re.escape(_prefix(job)) + r"\d+")
    return {
        detail.submission_id: detail.status
        for detail in jobs
        if detail.submission_id and mine.fullmatch(detail.submission_id)
    }


def _reap(client: JobSubmissionClient, job: Job) -> None:
    """Stop what a flow that was killed left running and no flow will come back for.

    A holder does one work of a kind at a time, and this is another one now.
    """
    left: list[JobDetails] = client.list_jobs() if job.holder else []
    for detail in left:
        name = detail.submission_id or ""
        held = (detail.metadata or {}).get(HOLDER) == job.holder
        other = name.startswith(f"{job.kind}-") and not name.startswith(_prefix(job))
        if held and other and not detail.status.is_terminal():
            logger.warning("%s %s is followed by nobody any more; stopping it", job.work, name)
            _stop(client, name, job.work)


def _stop(client: JobSubmissionClient, submission_id: str, work: str) -> None:
    """Stop a job and see it end, so that nothing trains on for nobody."""
    who = f"{work} {submission_id}"
    try:
        client.stop_job(submission_id)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if client.get_job_status(submission_id).is_terminal():
                return
            time.sleep(POLL_S)
    except (OSError, RuntimeError) as error:
        logger.warning("could not stop %s: %s", who, error)
        return
    logger.warning("%s did not stop within %g s", who, STOP_TIMEOUT_S)
