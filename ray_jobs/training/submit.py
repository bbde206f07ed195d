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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ray_jobs.errors import AwayError, TrainingError
from ray_jobs.remote import PATIENCE_S
from ray_jobs.training.events import Event
from ray_jobs.training.job import Following, Job

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

logger = logging.getLogger(__name__)

POLL_S = 0.3
LOG_S = 3.0  # between two looks at a job's log, which Ray gives as a whole
START_TIMEOUT_S = 60.0
SILENCE_S = 30.0  # how long Ray may not answer before we call it lost
STOP_TIMEOUT_S = 15.0
LIVES = 3  # of a job that dies without a word
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours
LOG_LINES = 25  # of a failed job's log, in the error


def submit(job: Job, address: str) -> str:
    """Start a job on the Ray whose dashboard is at an address; returns its submission id.

    The id follows from the job's name, so that asking again while it runs
    re-attaches to it instead of training twice.
    """
    client = _client(address)
    uri = job.save()
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
        watch = _Watch(_client(address), submission_id, job.work, on_event, follower)
        try:
            status = watch.to_the_end(start_timeout_s)
        except BaseException:
            _stop(watch)
            raise
        last = watch.last
        if status == "SUCCEEDED" and last is not None and last.kind == "finished":
            digest: str = last.detail["digest"]
            return digest
        if life == LIVES or status != "FAILED" or _complaint(watch):
            break
        logger.warning("%s %s died without a word; going on with it", job.work, submission_id)
        submission_id = submit(job, address)
    raise TrainingError(_reason(watch, status))


@dataclass
class _Watch:
    """Following one submission."""

    client: JobSubmissionClient
    submission_id: str
    work: str
    on_event: Callable[[Event], None]
    follower: Following
    last: Event | None = None
    answered: float = field(default_factory=time.monotonic)  # when Ray last answered
    heard: float = field(default_factory=time.monotonic)  # when the storage last answered
    logged: int = 0  # characters of the job's log that were passed on
    looked: float = 0.0  # when they were

    def to_the_end(self, start_timeout_s: float) -> str:
        """Poll until the job has ended and all its events are delivered; its status."""
        started = time.monotonic()
        while True:
            status = self._status()
            self._deliver()
            if status is not None and status.is_terminal():
                self._deliver()
                self._pass_on_log()
                return str(status.value)
            if time.monotonic() - self.looked > LOG_S:
                self._pass_on_log()
            if str(status) == "PENDING" and time.monotonic() - started > start_timeout_s:
                raise TrainingError(
                    f"{self.work} did not start within {start_timeout_s:g} s; the Ray it was "
                    "submitted to is overloaded or its job agent is down (`lyceum status`)"
                )
            time.sleep(POLL_S)

    def _status(self) -> JobStatus | None:
        try:
            status = self.client.get_job_status(self.submission_id)
        except (OSError, RuntimeError) as error:
            if time.monotonic() - self.answered > SILENCE_S:
                raise TrainingError(
                    f"Ray has not answered for {SILENCE_S:g} s ({error}); start it and run again, "
                    f"{self.work} goes on from its last checkpoint"
                ) from error
            return None
        self.answered = time.monotonic()
        return status

    def _pass_on_log(self) -> None:
        """What the job printed since, into the log of whoever follows it, line by line."""
        self.looked = time.monotonic()
        try:
            text = self.client.get_job_logs(self.submission_id)
        except (OSError, RuntimeError) as error:
            logger.debug("no log of %s yet: %s", self.submission_id, error)
            return
        whole = text[self.logged : text.rfind("\n") + 1]
        self.logged += len(whole)
        for line in ANSI.sub("", whole).splitlines():
            logger.info("%s", line, extra={"of_job": self.submission_id})

    def _deliver(self) -> None:
        for event in self._news():
            if "trial" not in event.detail:  # what one trial says is not the search's last word
                self.last = event
            self.on_event(event)

    def _news(self) -> list[Event]:
        """What was written since; nothing while the storage is away, unless it stays so."""
        try:
            found = self.follower.poll()
        except AwayError:
            if time.monotonic() - self.heard > PATIENCE_S:
                raise
            return []
        self.heard = time.monotonic()
        return found


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


def _stop(watch: _Watch) -> None:
    """Stop a job and see it end, so that nothing trains on for nobody."""
    client, who = watch.client, f"{watch.work} {watch.submission_id}"
    try:
        client.stop_job(watch.submission_id)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if client.get_job_status(watch.submission_id).is_terminal():
                return
            time.sleep(POLL_S)
    except (OSError, RuntimeError) as error:
        logger.warning("could not stop %s: %s", who, error)
        return
    logger.warning("%s did not stop within %g s", who, STOP_TIMEOUT_S)


def _reason(watch: _Watch, status: str) -> str:
    """Why a job ended without a model: what it said itself, or the end of its log."""
    if status == "STOPPED":
        return f"{watch.work} {watch.submission_id} was stopped; run again and it goes on"
    try:
        if complaint := _complaint(watch):
            return complaint
        lines = watch.client.get_job_logs(watch.submission_id).strip().splitlines()
    except (OSError, RuntimeError) as error:
        return f"{watch.work} ended {status}, and its log cannot be had: {error}"
    return "\n".join([f"{watch.work} ended {status}; the end of its log:", *lines[-LOG_LINES:]])


def _complaint(watch: _Watch) -> str:
    """Why a job failed, as far as it said so itself; an earlier attempt's word is not its own."""
    last = watch.last
    if last is None or last.kind != "failed":
        return ""
    started_ms = watch.client.get_job_info(watch.submission_id).start_time or 0
    return str(last.detail["error"]) if last.time * 1000 >= started_ms else ""
