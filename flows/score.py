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
from ray_jobs.families import family
from ray_jobs.recipe import Recipe
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
    run = Run(asked(release, data, settings or {}), here)
    manifest.check(run.store)
    progress = Progress(epochs=1)
    with contextlib.closing(Ray(run)) as ray:
        snapshot = progress.kept("ingest", lambda: ingest(run))
        table = progress.kept("clean", lambda: clean(run, snapshot))
        report = progress.kept(
            "score", lambda: scoring.score(run, release, table, out, lambda: ray.cluster)
        )
    return {**report, "timings_s": progress.timings_s, "cached": progress.cached}


def asked(release: Release, data: str, settings: dict[str, str]) -> Recipe:
    """How a log is read for a release; raises UsageError for what cannot be.

    Among that is a protocol under which an answer is scored with its own outcome known.
    """
    recipe = resolve(release.family, release.service, data, settings, None, None)
    barred = family(recipe.family).protocol(recipe.columns).barred
    if barred:
        raise UsageError(f"nothing is scored so: {barred}")
    return recipe


def chosen(settings: Settings, service: str, version: int | None) -> Release:
    """A service's champion, or a version of it; raises UsageError where none may serve."""
    mlflow = Registry.at(settings)
    with connection.answering(mlflow.uri):
        release = mlflow.release(service, registry.CHAMPION if version is None else version)
    if release is None:
        what = "champion" if version is None else f"version {version}"
        raise UsageError(f"service {service!r} has no {what}; lyceum services lists what there is")
    release.refuse_barred()
    return release
