"""`lyceum score`: what a version says of a whole log, as Parquet."""

from __future__ import annotations

import contextlib
from typing import Any

from prefect import flow

from flows.holding import Ray
from flows.request import resolve
from ray_jobs import manifest
from ray_jobs import settings as installation
from ray_jobs.errors import UsageError
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tasks import connection
from tasks import register as registry
from tasks import score as scoring
from tasks.prepare import clean, ingest
from tasks.progress import Progress
from tasks.record import Registry
from tasks.run import Run


@flow(name="lyceum-score", flow_run_name="{service}", validate_parameters=True)
def score(
    service: str,
    data: str,
    out: str,
    settings: dict[str, str] | None = None,
    version: int | None = None,
) -> dict[str, Any]:
    """Score a log with a service's champion, or a version of it; returns the report.

    Args:
        data: files, a folder, a glob or an fsspec URL.
        out: folder or fsspec URL, empty or new, or of the same scoring.
        settings: dotted settings of how the log is read, such as `{"columns.correct": "score"}`.

    Raises LyceumError with what to do about it.
    """
    here = installation.read()
    release = chosen(here, service, version)
    run = Run(resolve(release.family, service, data, settings or {}, None, None), here)
    manifest.check(run.store)
    progress = Progress(epochs=1)
    with contextlib.closing(Ray(run)) as ray:
        snapshot = progress.kept("ingest", lambda: ingest(run))
        table = progress.kept("clean", lambda: clean(run, snapshot))
        report = progress.kept(
            "score", lambda: scoring.score(run, release, table, out, lambda: ray.cluster)
        )
    return {**report, "timings_s": progress.timings_s, "cached": progress.cached}


def chosen(settings: Settings, service: str, version: int | None) -> Release:
    """A service's champion, or a version of it; raises UsageError where there is none."""
    mlflow = Registry.at(settings)
    with connection.answering(mlflow.uri):
        release = mlflow.release(service, registry.CHAMPION if version is None else version)
    if release is None:
        what = "champion" if version is None else f"version {version}"
        raise UsageError(f"service {service!r} has no {what}; lyceum services lists what there is")
    return release
