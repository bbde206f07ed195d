"""What lies in quarantine, readable again: each bad row with its place, its reason and its text.

A bad row is known by its file and by what it says, not by its place, so that
it is known again when the file has grown or is read by a later Lyceum.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ray_jobs.data import history
from ray_jobs.data.raw import PLACES
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.tables import parts, read_parquet
from ray_jobs.privacy import Key

ID = "id"
ABOUT = (ID, *PLACES, "reason", "raw")  # what is told of a bad row beside its columns


def lines(uri: str, key: Key) -> pl.DataFrame:
    """The rows of a quarantine, as MALFORMED; raises LyceumError under another key."""
    bad = read_parquet(uri)
    texts = [key.unseal(data) for data in bad["sealed"]]
    return bad.select(*PLACES, "reason").with_columns(pl.Series("raw", texts, dtype=pl.String))


def identified(bad: pl.DataFrame, key: Key) -> pl.DataFrame:
    """Bad rows with their ID; it begins with a letter, so no spreadsheet takes it for a number."""
    hashed = key.hasher("bad row")
    texts = bad.select(pl.concat_str("file", "raw", separator="\n")).to_series()
    return bad.with_columns(pl.Series(ID, [f"q{hashed(text)}" for text in texts], dtype=pl.String))


def bad_rows(snapshot: Snapshot, store_uri: str, key: Key) -> pl.DataFrame:
    """The bad rows of a snapshot: ABOUT, then its columns (String), each text of a file once.

    A malformed line has a text (`raw`) and no columns; a row that breaks a rule of the
    clean table made last has columns. Raises LyceumError under another key.
    """
    columns = snapshot.columns
    torn = [identified(lines(uri, key), key) for uri in snapshot.quarantines]
    made = history.tables(store_uri, snapshot)
    broken = parts(made[-1].quarantine)[len(torn) :] if made else []
    rows = [_spread(identified(lines(uri, key), key), columns) for uri in broken]
    schema = dict.fromkeys((*ABOUT, *columns), pl.String()) | {"line": pl.Int64()}
    none = pl.DataFrame(schema=schema)
    found = pl.concat([none, *torn, *rows], how="diagonal")
    return found.unique(ID, keep="first", maintain_order=True)


def _spread(bad: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Rows with their text as the columns that it holds."""
    said = pl.Struct(dict.fromkeys(columns, pl.String))
    text = pl.lit(None, pl.String).alias("raw")
    return bad.with_columns(pl.col("raw").str.json_decode(said).struct.unnest(), text)
