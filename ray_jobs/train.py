"""`python -m ray_jobs.train JOB_URI`: train what a job record says, on the Ray at hand.

The entry of a submitted Ray job and of a terminal alike. RAY_ADDRESS names the
cluster (Ray sets it inside a job); unset, a Ray of its own is started.
Exit status 0 when the artifact is there, or 1 with one clear message.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from ray_jobs.errors import LyceumError, UsageError
from ray_jobs.training import events
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one job; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if len(given) != 1:
            raise UsageError("usage: python -m ray_jobs.train JOB_URI")
        _train(TrainJob.load(given[0]))
    except LyceumError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who called
        return error.exit_code
    return 0


def _train(job: TrainJob) -> None:
    """Train, and leave word in the events when it fails, whatever the reason."""
    import ray

    from ray_jobs.training import driver

    try:
        ray.init(address=os.environ.get("RAY_ADDRESS") or "local", log_to_driver=True)
        driver.train(job)
    except Exception as error:
        detail = {"error": str(error) or type(error).__name__}
        attempt = max(1, events.next_attempt(job.events) - 1)
        events.append(job.events, Event("failed", attempt, detail=detail))
        raise
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
