"""Tables for tests, taken from text to clean rows as a run takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ray_jobs.data.clean import Cleaned
from ray_jobs.data.raw import together
from ray_jobs.data.sources import find
from ray_jobs.families.tabular import formats, rules
from ray_jobs.families.tabular.table import Columns


def cleaned(path: Path, timed: bool = False, **columns: Any) -> Cleaned:
    """The files of a folder, or one file, through the family's readers and rules."""
    how = Columns(**columns)
    units = formats.units(find(str(path)))
    raw = together(part for unit in units for part in formats.read(unit, how))
    rows = raw.rows.with_columns(
        pl.int_range(pl.len()).alias("position"),
        pl.lit(0, pl.UInt64).alias("bucket"),
        pl.lit(None, pl.String).alias("split"),
    )
    return rules.clean(rows, timed, how)


def written(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A CSV file of columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(dict(columns)).write_csv(path)
    return path
