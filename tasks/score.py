"""Score: what a registered version says of a whole table, written where its owner wants it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.tracking import MlflowClient
from prefect import task

from ray_jobs import manifest, scoring, store
from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.recipe import as_dict
from ray_jobs.scoring import Scoring
from ray_jobs.serving.release import Release
from tasks import connection, provenance, tracking
from tasks.record import Registry
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
    mlflow = Registry.at(run.settings)
    with (
        connection.answering(mlflow.uri),
        recorded(mlflow.client, run, release=release, table=table, asked=asked) as run_id,
    ):
        begin = time.perf_counter()
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
            "run_id": run_id,
        }
        figures = {f"rows/{name}": float(count) for name, count in rows.items()}
        figures["seconds"] = time.perf_counter() - begin
        tracking.log_once(mlflow.client, run_id, figures)
        tracking.log_json(mlflow.client, run_id, scoring.REPORT, report)
    scoring.finish(asked, report)
    return report, False


@contextmanager
def recorded(
    client: MlflowClient, run: Run, *, release: Release, table: CleanTable, asked: Scoring
) -> Iterator[str]:
    """A run of MLflow for one scoring, in the experiment of the service; the same when repeated.

    It ends as what is done within does, and says why where that failed.
    """
    service = release.service
    scoring_id = f"score-{manifest.digest([asked.plan, release.version, asked.out])[:32]}"
    run_id = tracking.open_run(
        client,
        service=service,
        lineage=scoring_id,
        name=f"score-by-version-{release.version}",
        artifacts=store.join(run.store, "mlflow"),
        params={
            "version": release.version,
            "version_lineage": release.lineage,
            "data": run.recipe.data,
            "out": asked.out,
            "columns": as_dict(run.recipe)["columns"],
        },
        tags={
            "kind": "score",
            "data_digest": table.digest,
            "family": release.family,
            "service": service,
            "version_lineage": release.lineage,
            **provenance.flow_tags(),
        },
    )
    try:
        yield run_id
    except BaseException as error:
        tracking.close_run(client, run_id, error=str(error) or type(error).__name__)
        raise
    tracking.close_run(client, run_id)
