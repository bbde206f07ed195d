"""`python -m ray_jobs.train JOB_URI [RAY_ADDRESS]`: train what a job record says."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ray_jobs.training.entry import enter
from ray_jobs.training.job import TrainJob


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one job; returns the exit status, 0 when the artifact is there."""
    return enter("ray_jobs.train", arguments, TrainJob.load, _train)


def _train(job: TrainJob) -> None:
    from ray_jobs.training import driver

    driver.train(job)


if __name__ == "__main__":
    sys.exit(main())
