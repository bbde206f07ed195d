"""Snapshots to clean tables: no row is lost, and every row is counted once.

Rows read = kept + quarantined + merged + repeats, always; the rules
themselves belong to the family.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import polars as pl

from ray_jobs import manifest, store
from ray_jobs.data.blocks import UNREADABLE_BYTES
from ray_jobs.data.pieces import OURS, sealed
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.tables import each, read_parquet, write_part
from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key

log = logging.getLogger(__name__)

COUNTS = "counts.json"  # beside table and quarantine
SHARE_ROWS = 600_000  # cleaned at a time, so that any number of them can be


@dataclass(frozen=True)
class Cleaned:
    """What a family's rules make of raw rows."""

    table: pl.DataFrame
    bad: pl.DataFrame  # position and reason of the rows that break a rule
    merged: int  # rows that were part of another row's answer
    repeats: int  # rows delivered again
    notes: tuple[str, ...] = ()  # what a person should know of what was made of them
    expanded: int = 0  # rows of the table beyond one for each that is kept


@dataclass(frozen=True)
class CleanTable:
    """A clean table on the store, and the count of everything that did not get there."""

    uri: str  # folder: table and quarantine, each a folder of Parquet files
    digest: str  # of the snapshot it came from
    read: int
    kept: int
    quarantined: dict[str, int]  # by reason, malformed rows of the snapshot included
    merged: int
    repeats: int
    timed: bool
    content: str = ""  # digest of the table itself
    notes: list[str] = field(default_factory=list)  # what a person should know of it
    snapshot: str = ""  # name of the one it came from
    refused: str = ""  # why there is no table, where rules refused it
    expanded: int = 0  # rows of the table beyond those kept

    @property
    def table(self) -> str:
        return store.join(self.uri, "table")

    @property
    def quarantine(self) -> str:
        return store.join(self.uri, "quarantine")

    @property
    def counts(self) -> dict[str, Any]:
        names = ("read", "kept", "quarantined", "merged", "repeats")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Share:
    """What became of a share of the rows."""

    written: str  # digest of its part of the table
    kept: int
    reasons: Counter[str]
    merged: int
    repeats: int
    notes: tuple[str, ...]
    expanded: int


def clean(
    snapshot: Snapshot,
    rules: Callable[[pl.DataFrame, bool], Cleaned],
    *,
    uri: str,
    key: Key,
    max_bad_fraction: float,
    whole: bool = False,
) -> CleanTable:
    """Apply a family's rules; raises ContractError past the bad fraction, after writing why.

    Rules see all rows of a learner at once, and all there are where they must see the `whole`.
    """
    table = CleanTable(
        uri=uri,
        digest=snapshot.digest,
        read=snapshot.read,
        kept=0,
        quarantined=snapshot.malformed,
        merged=0,
        repeats=0,
        timed=snapshot.timed,
        notes=snapshot.notes,
        snapshot=snapshot.name,
    )
    early = len(snapshot.quarantines)
    for number, malformed in enumerate(snapshot.quarantines):
        write_part(table.quarantine, number, read_parquet(malformed))
    shares = 1 if whole else math.ceil(snapshot.read / SHARE_ROWS)

    def work(share: int) -> Share:
        rows = snapshot.rows(share, shares)
        cleaned = rules(rows, snapshot.timed)
        write_part(table.quarantine, early + share, sealed(_said(rows, cleaned.bad), key))
        written = write_part(table.table, share, cleaned.table)
        return Share(
            written=written,
            kept=len(cleaned.table) - cleaned.expanded,
            reasons=Counter(cleaned.bad["reason"].to_list()),
            merged=cleaned.merged,
            repeats=cleaned.repeats,
            notes=cleaned.notes,
            expanded=cleaned.expanded,
        )

    return _finished(_counted(table, each(work, range(shares))), max_bad_fraction)


def _said(rows: pl.DataFrame, bad: pl.DataFrame) -> pl.DataFrame:
    """Bad rows with the place they stand at and, as JSON, what they say."""
    own = pl.struct(pl.exclude(*OURS, "reason"))
    found = rows.join(bad.select("position", "reason"), on="position")
    return found.select("file", "line", "reason", own.struct.json_encode().alias("raw"))


def _counted(table: CleanTable, done: Sequence[Share]) -> CleanTable:
    """A table with what its rules made of all shares of the rows."""
    reasons = sum((share.reasons for share in done), Counter(table.quarantined))
    return replace(
        table,
        kept=sum(share.kept for share in done),
        quarantined=dict(sorted(reasons.items())),
        merged=sum(share.merged for share in done),
        repeats=sum(share.repeats for share in done),
        notes=list(dict.fromkeys([*table.notes, *(n for share in done for n in share.notes)])),
        content=manifest.digest([share.written for share in done]),
        expanded=sum(share.expanded for share in done),
    )


def _finished(table: CleanTable, max_bad_fraction: float) -> CleanTable:
    """A table that is good enough; one that is refused is taken away again."""
    bad = sum(table.quarantined.values())
    assert table.read == table.kept + bad + table.merged + table.repeats, table
    why = _refusal(table, bad, max_bad_fraction)
    # The counts stay where the table does not: they are what there is to mend.
    store.write_json(store.join(table.uri, COUNTS), asdict(replace(table, refused=why)))
    if why:
        store.remove(table.table)
        raise ContractError(why)
    log.info(
        "clean: %d rows read = %d kept + %d quarantined + %d merged + %d repeats",
        table.read, table.kept, bad, table.merged, table.repeats,
    )  # fmt: skip
    for note in table.notes:
        log.info("clean: %s", note)
    if table.expanded:
        log.info("clean: %d rows more than are kept stand in the table", table.expanded)
    return table


def _refusal(table: CleanTable, bad: int, limit: float) -> str:
    """Why a table is not good enough; nothing where it is."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in table.quarantined.items())
    mend = f"Mend the log, or these rows alone (lyceum data replay {table.snapshot}), "
    mend += "map its columns with --set columns.NAME=..."
    if UNREADABLE_BYTES in table.quarantined:
        mend += ", name its encoding with --set encoding=latin-1, say"
    if table.kept == 0:
        return f"no valid row among {table.read}: {reasons}; they lie in {table.quarantine}. {mend}"
    if bad > limit * table.read:
        return (
            f"{bad} of {table.read} rows are bad ({reasons}), more than the recipe's "
            f"{limit:.0%}; they lie in {table.quarantine}. {mend}, "
            "or allow more with --set max_bad_fraction=..."
        )
    return ""
