"""Following one submission of a Ray job: its status, its events, its log, and why it ended."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ray_jobs import remote
from ray_jobs.errors import AwayError, TrainingError
from ray_jobs.training.events import Event
from ray_jobs.training.job import Following

if TYPE_CHECKING:
    from ray.job_submission import JobStatus, JobSubmissionClient

logger = logging.getLogger(__name__)

POLL_S = 0.3
LOG_S = 3.0  # between two looks at a job's log, which Ray gives as a whole
SILENCE_S = 30.0  # how long Ray may not answer before we call it lost
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours
LOG_LINES = 25  # of a failed job's log, in the error


@dataclass
class Watch:
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
            self._deliver(self._news())
            if status is not None and status.is_terminal():
                self._deliver(remote.patiently(self.follower.poll))  # its last word counts
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

    def _deliver(self, news: list[Event]) -> None:
        for event in news:
            if "trial" not in event.detail:  # what one trial says is not the search's last word
                self.last = event
            self.on_event(event)

    def _news(self) -> list[Event]:
        """What was written since; nothing while the storage is away, unless it stays so."""
        try:
            found = self.follower.poll()
        except AwayError:
            if time.monotonic() - self.heard > remote.PATIENCE_S:
                raise
            return []
        self.heard = time.monotonic()
        return found


def reason(watch: Watch, status: str) -> str:
    """Why a job ended without a model: what it said itself, or the end of its log."""
    if status == "STOPPED":
        return f"{watch.work} {watch.submission_id} was stopped; run again and it goes on"
    try:
        if said := complaint(watch):
            return said
        lines = watch.client.get_job_logs(watch.submission_id).strip().splitlines()
    except (OSError, RuntimeError) as error:
        return f"{watch.work} ended {status}, and its log cannot be had: {error}"
    return "\n".join([f"{watch.work} ended {status}; the end of its log:", *lines[-LOG_LINES:]])


def complaint(watch: Watch) -> str:
    """Why a job failed, as far as it said so itself; an earlier attempt's word is not its own."""
    last = watch.last
    if last is None or last.kind != "failed":
        return ""
    started_ms = watch.client.get_job_info(watch.submission_id).start_time or 0
    return str(last.detail["error"]) if last.time * 1000 >= started_ms else ""
