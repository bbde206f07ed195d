"""`python -m ray_jobs.tune JOB_URI [RAY_ADDRESS]`: search among settings as a job record says."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ray_jobs.training.entry import enter
from ray_jobs.tuning.job import SearchJob


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one search; returns the exit status, 0 when every trial has ended."""
    return enter("ray_jobs.tune", arguments, SearchJob.load, _search)


def _search(job: SearchJob) -> None:
    from ray_jobs.tuning import driver

    driver.search(job)


if __name__ == "__main__":
    sys.exit(main())
