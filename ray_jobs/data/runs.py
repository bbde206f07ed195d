"""Runs: rows sorted by bucket, of which those of any share of learners are read alone.

An Arrow file with batches of some thousand rows; where each begins is known,
so that a reader, near or far, fetches no other.
"""

from __future__ import annotations

import io
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
from pyarrow import ipc

from ray_jobs import remote, store
from ray_jobs.errors import StoreError

BATCH_ROWS = 1 << 13
AHEAD_BYTES = 1 << 20  # of a batch, about
LAST = 2**64 - 1  # bucket


@dataclass(frozen=True)
class Run:
    """A file of rows; those without a bucket stand first."""

    uri: str
    firsts: list[int]  # bucket of the first row of each batch
    constants: dict[str, str | None]  # columns that hold one text alone, and lie not in the file
    schema: list[str]  # columns, in their order
    offset: int = 0  # of its positions in the delivery


def write(uri: str, rows: pl.DataFrame, constants: Mapping[str, str | None]) -> Run:
    """Write rows with a `bucket` (UInt64) at once or not at all."""
    schema = [*rows.columns, *constants]
    rows = rows.sort("bucket", maintain_order=True)
    buffer = io.BytesIO()
    # Polars' own form of texts would take along what a column was made of: rows that are not in it.
    rows.write_ipc(
        buffer,
        compression="lz4",
        record_batch_size=BATCH_ROWS,
        compat_level=pl.CompatLevel.oldest(),
    )
    store.write_bytes(uri, buffer.getvalue())
    firsts = rows["bucket"].gather_every(BATCH_ROWS).fill_null(0).to_list()
    return Run(uri, firsts, dict(constants), schema)


def read(run: Run, low: int = 0, high: int = LAST) -> pl.DataFrame:
    """The rows from one bucket to another; those without a bucket are at 0.

    Raises StoreError where the file is gone or damaged.
    """
    begin = max(0, bisect_left(run.firsts, low) - 1)
    beyond = bisect_right(run.firsts, high)
    frame = _batches(run, range(begin, beyond))
    places = frame["bucket"].fill_null(0)
    first = int(places.search_sorted(low, "left"))
    rows = frame[first : int(places.search_sorted(high, "right"))]
    constants = [pl.lit(text, pl.String).alias(name) for name, text in run.constants.items()]
    return rows.with_columns(*constants, pl.col("position") + run.offset).select(run.schema)


def texts(run: Run, column: str) -> pl.Series:
    """A column of texts alone."""
    frame = _batches(run, range(len(run.firsts)), fields=[run.schema.index(column)])
    return frame[column]


def _batches(run: Run, numbers: Sequence[int], fields: Sequence[int] | None = None) -> pl.DataFrame:
    try:
        with remote.opened(run.uri, ahead_bytes=AHEAD_BYTES) as file:
            options = ipc.IpcReadOptions(included_fields=fields)
            reader = ipc.open_file(file, options=options)
            batches = [reader.get_batch(number) for number in numbers]
            table: Any = pl.from_arrow(pa.Table.from_batches(batches, reader.schema))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{run.uri} cannot be read: {error}; remove the folder it lies in and run again"
        ) from error
    assert isinstance(table, pl.DataFrame)
    return table
