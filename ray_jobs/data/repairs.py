"""Repairs: bad rows that a person mended, to stand where the delivered ones stood.

Each file has a table of them: what a bad row was, and what stands for it. The
next snapshot of that file is what it would have been had it come so, and how
often a repair is admitted makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ray_jobs import manifest, store
from ray_jobs.data import readers
from ray_jobs.data.quarantine import ABOUT, ID, bad_rows
from ray_jobs.data.raw import own
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.sources import Source
from ray_jobs.data.tables import read_parquet, write_parquet
from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key, buckets

FOLDER = "repairs"  # of the store
WAS = "was "  # before the name of a column: what it held
ORDER = "order"  # of the rows that stand for one line


@dataclass(frozen=True)
class Admitted:
    """What became of the bad rows that a file of repairs names."""

    mended: int  # others stand for them from now on
    known: int  # what is told stood for them already
    left: int  # they are told as they were


def admit(source: Source, snapshot: Snapshot, store_uri: str, key: Key) -> Admitted:
    """Take in mended rows, a table with the columns of `bad_rows`; to do it again is no harm.

    Rows that are told as they were stay in quarantine. A malformed line may become
    several rows. Raises ContractError naming the line of the source that is no repair.
    """
    there = bad_rows(snapshot, store_uri, key)
    given = _given(source, snapshot.columns)
    _refuse_strangers(source, given, there, snapshot.name)
    new = _told(given, there, snapshot, key)
    _refuse_two_for_one(source, new)
    known = 0
    for (file,), repairs in new.drop("line").group_by("file", maintain_order=True):
        uri = place(store_uri, str(file), snapshot.columns)
        before = read_parquet(uri) if store.exists(uri) else repairs.clear()
        known += _known(before, repairs)
        write_parquet(uri, _together(before, repairs, snapshot))
    mended = new[ID].n_unique()
    return Admitted(mended - known, known, given[ID].n_unique() - mended)


def place(store_uri: str, file: str, columns: Sequence[str]) -> str:
    """Where the repairs of a file lie, as it was read into these columns."""
    name = manifest.digest([file, sorted(columns)])[:24]
    return store.join(store_uri, FOLDER, f"{name}.parquet")


def replaced(
    rows: pl.DataFrame, repairs: pl.DataFrame, columns: Sequence[str], group: str
) -> pl.DataFrame:
    """Rows, with `file` and `bucket`, in which what was bad is as it was mended."""
    bad = repairs.filter(~pl.col("torn")).unique(["file", *(WAS + c for c in columns)])
    was = bad.select(
        "file",
        *(pl.col(WAS + c).alias(c) for c in columns),
        pl.struct(*columns, "bucket").alias("now"),
    )
    found = rows.join(was, ["file", *columns], "left", nulls_equal=True, maintain_order="left")
    now, there = pl.col("now").struct, pl.col("now").is_not_null()
    other = there & now.field(group).ne_missing(pl.col(group))
    mended = [pl.when(there).then(now.field(c)).otherwise(c).alias(c) for c in columns]
    bucket = pl.when(other).then(now.field("bucket")).otherwise("bucket").alias("bucket")
    return found.with_columns(*mended, bucket).drop("now")


def _given(source: Source, columns: Sequence[str]) -> pl.DataFrame:
    """The rows of a file of repairs, with their `line` there, in its order."""
    raw = readers.read(source)
    for line, reason in raw.malformed.select("line", "reason").iter_rows():
        raise ContractError(f"{source.url}, line {line}: {reason}; expected a row like the others")
    lacking = [name for name in (ID, *columns) if name not in raw.rows.columns]
    others = set(raw.rows.columns) - {*ABOUT, *map(own, ABOUT), *columns}
    if lacking or others:
        what = f"no column {lacking[0]}" if lacking else f"a column {min(others)}"
        raise ContractError(
            f"{source.url}: {what}; expected {', '.join((ID, *columns))}, as "
            "lyceum data replay SNAPSHOT --write FILE writes them"
        )
    return raw.rows.select(ID, "line", *columns).with_row_index(ORDER)


def _refuse_strangers(
    source: Source, given: pl.DataFrame, there: pl.DataFrame, snapshot: str
) -> None:
    strange = given.join(there, on=ID, how="anti", nulls_equal=True)
    for line, name in strange.select("line", ID).iter_rows():
        raise ContractError(
            f"{source.url}, line {line}: {name} is no bad row of snapshot {snapshot}; one that "
            "was mended is found in the snapshot that it came from"
        )


def _told(given: pl.DataFrame, there: pl.DataFrame, snapshot: Snapshot, key: Key) -> pl.DataFrame:
    """What stands for each bad row that is told otherwise: what it was, and what it is."""
    columns, group = snapshot.columns, snapshot.group
    was = there.select(
        ID, "file", pl.col("raw").is_not_null().alias("torn"),
        *(pl.col(c).alias(WAS + c) for c in columns),
    )  # fmt: skip
    found = given.join(was, on=ID, maintain_order="left")
    changed = [pl.col(c).ne_missing(pl.col(WAS + c)) for c in columns]
    found = found.filter(pl.any_horizontal(changed))
    # Who was told by a pseudonym goes on under it.
    other = pl.col(group).ne_missing(pl.col(WAS + group))
    names = found.select(pl.when(other).then(group).alias("name"))["name"]
    found = found.with_columns(key.pseudonyms(names), buckets(names).alias("bucket"))
    learner = pl.when(other).then("name").otherwise(group).alias(group)
    return found.with_columns(learner).drop("name")


def _refuse_two_for_one(source: Source, new: pl.DataFrame) -> None:
    second = new.filter(~pl.col("torn") & ~pl.col(ID).is_first_distinct())
    for line, name in second.select("line", ID).iter_rows():
        raise ContractError(
            f"{source.url}, line {line}: {name} is told twice; a row is mended by one, and only a "
            "malformed line may have been several"
        )


def _known(before: pl.DataFrame, new: pl.DataFrame) -> int:
    """Bad rows for which the same stood before."""
    said = pl.struct(pl.exclude(ID, ORDER)).alias("said")
    stood, told = (
        dict(repairs.select(ID, said).group_by(ID, maintain_order=True).agg("said").iter_rows())
        for repairs in (before, new)
    )
    return sum(stood.get(name) == rows for name, rows in told.items())


def _together(before: pl.DataFrame, new: pl.DataFrame, snapshot: Snapshot) -> pl.DataFrame:
    """The repairs of a file: the later ones hold, also for what earlier ones made of a row."""
    kept = before.join(new, on=ID, how="anti")
    kept = replaced(kept, new, snapshot.columns, snapshot.group)
    return pl.concat([kept, new.select(kept.columns)]).sort(ID, ORDER)
