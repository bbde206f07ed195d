"""A table as an analyst holds it, turned into rows and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ray_jobs.errors import ContractError
from ray_jobs.families.tabular.batch import Row, Rows
from ray_jobs.families.tabular.table import PREFIX
from ray_jobs.families.tabular.vocabulary import Vocabulary
from ray_jobs.frames import Table, numbers, texts
from ray_jobs.verb import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd  # a worker or a replica need not have it


def columns(vocabulary: Vocabulary) -> list[Column]:
    """One column per feature; none is required, since what is missing is known to be so."""
    found = [Column(n.name, "number", False, "a number") for n in vocabulary.numbers]
    shown = [", ".join(c.values[:5]) for c in vocabulary.categories]
    categories = zip(vocabulary.categories, shown, strict=True)
    return found + [Column(c.name, "any", False, f"such as {words}") for c, words in categories]


def outputs(vocabulary: Vocabulary) -> Sequence[str]:
    """The columns of predictions: of outcomes one probability each, or the second's of two."""
    target = vocabulary.target
    if target.kind == "number":
        return ("value",)
    return target.outcomes[1:] if target.kind == "binary" else target.outcomes


def example(vocabulary: Vocabulary) -> dict[str, list[Any]]:
    """Columns of a small valid frame: low, middling and high numbers, common and new values."""
    found: dict[str, list[Any]] = {
        n.name: [n.quantiles[0], n.quantiles[len(n.quantiles) // 2], n.quantiles[-1]]
        for n in vocabulary.numbers
    }
    for c in vocabulary.categories:
        found[c.name] = [c.values[0] if c.values else "", "a value never seen", None]
    return found


def frame(
    rows: pd.DataFrame | Table, vocabulary: Vocabulary
) -> tuple[Sequence[Row], NDArray[np.int64]]:
    """Rows to predict, and (N,) the row of the frame each belongs to: its own.

    A feature that is no column of the frame is missing in every row. Raises
    ContractError where not one is, or a number is none.
    """
    known = [column.name for column in vocabulary.columns]
    if not set(known) & set(rows.columns):
        raise ContractError(f"the frame has none of the columns {', '.join(known)}")
    made: dict[str, pl.Series] = {}
    for n in vocabulary.numbers:
        made[PREFIX + n.name] = pl.Series(numbers(rows, n.name), dtype=pl.Float64)
    for c in vocabulary.categories:
        made[PREFIX + c.name] = pl.Series(texts(rows, c.name), dtype=pl.String)
    return Rows(pl.DataFrame(made), vocabulary), np.arange(len(rows))
