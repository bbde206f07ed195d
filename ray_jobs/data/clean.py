"""Snapshots to clean tables: no row is lost, and every row is counted once.

Rows read = kept + quarantined + merged + repeats, always; the rules
themselves belong to the family.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import polars as pl

from ray_jobs import store
from ray_jobs.data.snapshot import Snapshot, read_parquet, sealed, write_parquet
from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cleaned:
    """What a family's rules make of raw rows."""

    table: pl.DataFrame
    bad: pl.DataFrame  # file, line, reason, raw
    merged: int  # rows that were part of another row's answer
    repeats: int  # rows delivered again
    notes: tuple[str, ...] = ()  # what a person should know of what was made of them


@dataclass(frozen=True)
class CleanTable:
    """A clean table on the store, and the count of everything that did not get there."""

    uri: str  # folder: table.parquet, quarantine.parquet
    digest: str  # of the snapshot it came from
    read: int
    kept: int
    quarantined: dict[str, int]  # by reason, malformed rows of the snapshot included
    merged: int
    repeats: int
    timed: bool
    content: str = ""  # digest of the table itself
    notes: list[str] = field(default_factory=list)  # what a person should know of it

    @property
    def table(self) -> str:
        return store.join(self.uri, "table.parquet")

    @property
    def counts(self) -> dict[str, Any]:
        names = ("read", "kept", "quarantined", "merged", "repeats")
        return {name: getattr(self, name) for name in names}


def clean(
    snapshot: Snapshot,
    rules: Callable[[pl.DataFrame, bool], Cleaned],
    *,
    uri: str,
    key: Key,
    max_bad_fraction: float,
) -> CleanTable:
    """Apply a family's rules; raises ContractError past the bad fraction, after writing why."""
    cleaned = rules(read_parquet(snapshot.rows), snapshot.timed)
    early = read_parquet(snapshot.quarantine)
    quarantine = pl.concat([early, sealed(cleaned.bad, key)])
    table = CleanTable(
        uri=uri,
        digest=snapshot.digest,
        read=snapshot.read,
        kept=len(cleaned.table),
        quarantined=dict(sorted(quarantine["reason"].value_counts().iter_rows())),
        merged=cleaned.merged,
        repeats=cleaned.repeats,
        timed=snapshot.timed,
        notes=[*snapshot.notes, *cleaned.notes],
    )
    assert table.read == table.kept + len(quarantine) + table.merged + table.repeats, table
    write_parquet(store.join(uri, "quarantine.parquet"), quarantine)
    _refuse_rubbish(table, len(quarantine), max_bad_fraction)
    table = replace(table, content=write_parquet(table.table, cleaned.table))
    store.write_json(store.join(uri, "counts.json"), asdict(table))
    log.info(
        "clean: %d rows read = %d kept + %d quarantined + %d merged + %d repeats",
        table.read, table.kept, len(quarantine), table.merged, table.repeats,
    )  # fmt: skip
    for note in table.notes:
        log.info("clean: %s", note)
    return table


def _refuse_rubbish(table: CleanTable, bad: int, limit: float) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in table.quarantined.items())
    if table.kept == 0:
        raise ContractError(
            f"no valid row among {table.read}: {reasons}; they lie in "
            f"{table.uri}/quarantine.parquet. Mend the log, or map its columns with "
            "--set columns.NAME=..."
        )
    if bad > limit * table.read:
        raise ContractError(
            f"{bad} of {table.read} rows are bad ({reasons}), more than the recipe's "
            f"{limit:.0%}; they lie in {table.uri}/quarantine.parquet. Mend the log, map its "
            "columns with --set columns.NAME=..., or allow more with --set max_bad_fraction=..."
        )
