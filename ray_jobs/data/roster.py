"""A school's list of its learners with the pseudonym of each: how scores find back to people.

Who holds the installation's key may make it, and nobody else can.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ray_jobs.errors import UsageError
from ray_jobs.privacy import Key

PSEUDONYM = "pseudonym"


def read(path: Path, column: str | None) -> tuple[pl.DataFrame, str]:
    """A CSV or Parquet file with its values as they are written, and which column names learners.

    That is the first, unless told otherwise. Raises UsageError for what is no such list.
    """
    try:
        if path.suffix == ".parquet":
            found = pl.read_parquet(path)
        else:
            found = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{path}: {error}; expected a CSV or Parquet file of learners") from error
    name = column or next(iter(found.columns), "")
    if name not in found.columns:
        there = ", ".join(found.columns)
        raise UsageError(f"{path} has no column {name!r}; there are {there}")
    nested = [one for one, kind in found.schema.items() if kind.is_nested()]
    if nested:
        raise UsageError(f"{path} has lists in its column {nested[0]!r}; leave it out")
    if PSEUDONYM in found.columns:
        raise UsageError(f"{path} has a column {PSEUDONYM!r} already; rename it, or leave it out")
    return found, name


def with_pseudonyms(roster: pl.DataFrame, column: str, key: Key) -> pl.DataFrame:
    """The list with one column more; empty where nobody is named.

    A learner is who the log names in the same characters: `7` is not `007`.
    """
    names = roster[column].cast(pl.String)
    return roster.with_columns(key.pseudonyms(names).alias(PSEUDONYM))
