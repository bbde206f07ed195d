"""Where a model of a table may do well or badly: by value of its categories, by file, by gaps."""

from __future__ import annotations

import polars as pl

from ray_jobs.families.tabular.table import PREFIX
from ray_jobs.families.tabular.vocabulary import Vocabulary

MOST_VALUES = 12  # of a category with figures of its own
MOST_CATEGORIES = 8
GAPS = pl.Enum(["none", "some"])


def slices(table: pl.DataFrame, vocabulary: Vocabulary) -> pl.DataFrame:
    """One row per row of a clean table, one column per way to divide its scored rows."""
    few = [c for c in vocabulary.categories if 2 <= len(c.values) <= MOST_VALUES]
    parts = [
        pl.col(PREFIX + c.name).fill_null("missing").alias(_apart(c.name))
        for c in few[:MOST_CATEGORIES]
    ]
    names = vocabulary.columns
    gaps = pl.any_horizontal(pl.col(PREFIX + column.name).is_null() for column in names)
    some = pl.when(gaps).then(pl.lit("some")).otherwise(pl.lit("none")).cast(GAPS)
    files = [pl.col("file")] if table["file"].n_unique() > 1 else []
    return table.select(*files, some.alias("missing values"), *parts)


def _apart(name: str) -> str:
    """A column's name, out of the way of those that a report has itself."""
    return f"{name}_" if name in {"group", "target", "file", "missing values"} else name
