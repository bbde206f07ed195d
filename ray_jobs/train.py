"""`python -m ray_jobs.train JOB_URI [RAY_ADDRESS]`: train what a job record says.

The entry of a submitted Ray job and of a terminal alike. Without an address
RAY_ADDRESS names the cluster; where that is unset too, a Ray of its own starts.
Exit status 0 when the artifact is there, or 1 with one clear message.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from ray_jobs.errors import LyceumError, PlatformError, UsageError
from ray_jobs.training import events
from ray_jobs.training.job import TrainJob
from ray_jobs.training.local import agent_on_any_port

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one job; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if len(given) not in (1, 2):
            raise UsageError("usage: python -m ray_jobs.train JOB_URI [RAY_ADDRESS]")
        address = given[1] if len(given) == 2 else os.environ.get("RAY_ADDRESS")
        _train(TrainJob.load(given[0]), address or "local")
    except LyceumError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who called
        return error.exit_code
    return 0


def _train(job: TrainJob, address: str) -> None:
    """Train, and leave word in the events when it fails, whatever the reason."""
    import ray

    from ray_jobs.training import driver

    try:
        with agent_on_any_port():
            _join(address)
        driver.train(job)
    except Exception as error:
        events.append(job.events, events.failed(job.events, error))
        raise
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address)
    except ConnectionError as error:
        raise PlatformError(f"no Ray answers at {address}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
