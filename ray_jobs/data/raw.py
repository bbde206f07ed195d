"""Raw rows: every value as text, every row with its file and line, and what was malformed.

What cannot be split into columns is not lost and not guessed: it comes back
as malformed, with its raw text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ray_jobs.data.sources import Source

MALFORMED = pl.Schema({"file": pl.String, "line": pl.Int64, "reason": pl.String, "raw": pl.String})
PLACES = ("file", "line")
BY_PLACE = "groups that have no name are known by their place in the file alone"


@dataclass(frozen=True)
class Raw:
    """Rows of a file, or of a part of it: tidy String columns, `file` and `line` (1-based).

    A column of the log's own called file or line has an underscore behind it.
    """

    rows: pl.DataFrame
    malformed: pl.DataFrame  # MALFORMED
    notes: tuple[str, ...] = ()  # what a person should know of how it was read


def together(batches: Iterable[Raw]) -> Raw:
    """Batches as one; a column that some of them lack is null there."""
    parts = list(batches)
    return Raw(
        rows=pl.concat([part.rows for part in parts], how="diagonal"),
        malformed=pl.concat([part.malformed for part in parts]),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def rename(raw: Raw, names: Mapping[str, str]) -> Raw:
    """Keep and rename columns: {canonical name: source column}."""
    keep = [pl.col(old).alias(new) for new, old in names.items()]
    return replace(raw, rows=raw.rows.select(*keep, *PLACES))


def own(name: str) -> str:
    """A column name of the log, out of the way of ours."""
    name = name.strip()
    return f"{name}_" if name in PLACES else name


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """Texts without spaces around them, and null where none is left."""
    text = pl.col(pl.String)
    return rows.with_columns(text.str.strip_chars()).with_columns(pl.when(text != "").then(text))


def placed(rows: pl.DataFrame, source: Source, line: pl.Series) -> pl.DataFrame:
    """Tidy rows with the file and the lines (Int64) they stand in."""
    return rows.with_columns(pl.lit(source.name).alias("file"), line.alias("line"))


def malformed(source: Source, bad: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Faults of one file as MALFORMED; each has line, reason and raw."""
    return pl.DataFrame([{"file": source.name, **b} for b in bad], schema=MALFORMED)
