"""Ingest, clean and split: from files to three tables, each kept by what it depends on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import task

from ray_jobs import manifest
from ray_jobs.data import clean as cleaning
from ray_jobs.data import snapshot as snapshots
from ray_jobs.data import sources
from ray_jobs.data import split as splitting
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.split import SplitTable
from tasks.retry import RETRIES
from tasks.run import Run


@task(name="ingest", **RETRIES)
def ingest(run: Run) -> tuple[Snapshot, bool]:
    """Read the files that the recipe names into an immutable snapshot."""
    files = sources.find(run.recipe.data)
    columns = run.recipe.columns
    inputs = {
        "files": [[f.name, f.kind, f.split, f.digest()] for f in files],
        "columns": asdict(columns),
        "key": run.key.fingerprint,
        "code": run.code("data", "privacy.py"),
    }

    def work(_: str) -> dict[str, Any]:
        read = run.family.read
        snapshot = snapshots.ingest(
            files,
            lambda source: read(source, columns),
            group=run.family.group,
            key=run.key,
            store_uri=run.store,
        )
        return asdict(snapshot)

    result, cached = manifest.once(run.store, "ingest", inputs, work)
    return Snapshot(**result), cached


@task(name="clean")
def clean(run: Run, snapshot: Snapshot) -> tuple[CleanTable, bool]:
    """Apply the family's rules; every row is kept, quarantined, merged or a repeat."""
    columns = run.recipe.columns
    limit = run.recipe.max_bad_fraction
    inputs = {
        "snapshot": snapshot.uri.rsplit("/", 1)[-1],
        "columns": asdict(columns),
        "limit": limit,
        "code": run.code("data", "privacy.py"),
    }

    def work(uri: str) -> dict[str, Any]:
        rules = run.family.clean
        table = cleaning.clean(
            snapshot,
            lambda rows, timed: rules(rows, timed, columns),
            uri=uri,
            key=run.key,
            max_bad_fraction=limit,
        )
        return asdict(table)

    result, cached = manifest.once(run.store, "clean", inputs, work)
    return CleanTable(**result), cached


@task(name="split")
def split(run: Run, table: CleanTable) -> tuple[SplitTable, bool]:
    """Divide learners, and with a cut also time, into train, validation and test."""
    how, service = run.recipe.split, run.recipe.service
    inputs = {
        "table": table.uri.rsplit("/", 1)[-1],
        "how": asdict(how),
        "salt": service,
        "code": run.code("data", "privacy.py"),
    }

    def work(uri: str) -> dict[str, Any]:
        group = run.family.group
        return splitting.split(table, how, group=group, salt=service, uri=uri).as_dict()

    result, cached = manifest.once(run.store, "split", inputs, work)
    return SplitTable(**result), cached
