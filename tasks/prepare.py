"""Ingest, clean and split: from files to three tables, each kept by what it depends on."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from prefect import task

from ray_jobs import code, manifest, store
from ray_jobs.data import clean as cleaning
from ray_jobs.data import ingestion, sources
from ray_jobs.data import split as splitting
from ray_jobs.data.clean import COUNTS, CleanTable
from ray_jobs.data.history import REPORT
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.split import SplitTable
from ray_jobs.errors import ContractError
from tasks import describe
from tasks.retry import RETRIES
from tasks.run import Run


@task(name="ingest", **RETRIES)
def ingest(run: Run) -> tuple[Snapshot, bool]:
    """Read the files that the recipe names into an immutable snapshot."""
    family, columns = run.family, run.recipe.columns
    return ingestion.ingest(
        family.units(sources.find(run.recipe.data, run.recipe.encoding)),
        lambda unit: family.read(unit, columns),
        group=family.group,
        ordered=family.ordered,
        key=run.key,
        store_uri=run.store,
        inputs={
            "columns": asdict(columns),
            "encoding": run.recipe.encoding,
            "code": code.digest(family.units, family.read, ingestion),
        },
    )


@task(name="clean")
def clean(run: Run, snapshot: Snapshot) -> tuple[CleanTable, bool]:
    """Apply the family's rules; every row is kept, quarantined, merged or a repeat."""
    columns = run.recipe.columns
    limit = run.recipe.max_bad_fraction
    inputs = {
        "snapshot": snapshot.name,
        "columns": asdict(columns),
        "limit": limit,
        "code": code.digest(run.family.clean, cleaning),
    }

    def work(uri: str) -> dict[str, Any]:
        rules = run.family.clean
        try:
            table = cleaning.clean(
                snapshot,
                lambda rows, timed: rules(rows, timed, columns),
                uri=uri,
                key=run.key,
                max_bad_fraction=limit,
                whole=run.family.whole,
            )
        except ContractError as error:
            raise _reported(run, snapshot, uri, error) from error
        return asdict(table)

    result, cached = manifest.once(run.store, "clean", inputs, work)
    return CleanTable(**result), cached


def _reported(run: Run, snapshot: Snapshot, uri: str, error: ContractError) -> ContractError:
    """An error with the place of a report, where rows could be counted before they were refused."""
    counts = store.join(uri, COUNTS)
    if not store.exists(counts):
        return error
    told = describe.accounts(run, snapshot, CleanTable(**store.read_json(counts)))
    report = describe.write(told, uri=store.join(uri, REPORT))
    return ContractError(f"{error}. The report: {report.page}")


@task(name="split")
def split(run: Run, table: CleanTable) -> tuple[SplitTable, bool]:
    """Divide learners, and with a cut also time, into train, validation and test."""
    how, service = run.recipe.split, run.recipe.service
    inputs = {
        "table": table.content,
        "how": asdict(replace(how, folds=0)),  # folds are divided elsewhere
        "salt": service,
        "code": code.digest(splitting),
    }

    def work(uri: str) -> dict[str, Any]:
        made = splitting.split(table, how, group=run.family.group, salt=service, uri=uri)
        splitting.refuse_one_outcome(made, run.family.label)
        return made.as_dict()

    result, cached = manifest.once(run.store, "split", inputs, work)
    return SplitTable(**result), cached
