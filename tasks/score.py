"""Score: what a registered version says of a whole table, written where its owner wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from prefect import task

from ray_jobs import scoring
from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.scoring import Scoring
from ray_jobs.serving.release import Release
from tasks.retry import RETRIES
from tasks.run import Run

log = logging.getLogger(__name__)


@task(name="score", **RETRIES)
def score(
    run: Run, release: Release, table: CleanTable, out: str, cluster: Callable[[], Cluster]
) -> tuple[dict[str, Any], bool]:
    """Write predictions, and what else the family tells, below `out`; joins a Ray if need be."""
    asked = Scoring(release.artifact, release.digest, table.table, table.content, out)
    known = scoring.known(asked)
    if known is not None:
        return known, True
    cluster()
    rows = scoring.run(asked, run.family.group, scoring.on_ray(asked))
    report = {
        "service": release.service,
        "version": release.version,
        "lineage": release.lineage,
        "digest": release.digest,
        "data": {"digest": table.digest, **table.counts},
        "out": out,
        "rows": rows,
    }
    scoring.finish(asked, report)
    return report, False
