"""What columns of text hold: numbers, categories, or nothing a model should learn from."""

from __future__ import annotations

import polars as pl

from ray_jobs.data.moments import seconds
from ray_jobs.errors import ContractError
from ray_jobs.families.tabular.table import KINDS

MOSTLY = 0.95  # share of numbers that makes a column one of numbers, the rest slips
MOST_CLASSES = 50
FEW_NUMBERS = 10  # whole numbers as label: up to so many are classes, more are an amount
MANY_NAMES = 50  # values of a text column, from which it may be names or free text
DISTINCT = 0.5  # share of rows with a value of their own, from which it is


def kind_of(values: pl.Series) -> str:
    """Of a feature: number, category, or why it is left out."""
    known = values.drop_nulls()
    distinct = known.n_unique()
    if distinct < 2:
        return "constant"
    numbers = known.cast(pl.Float64, strict=False)
    if numbers.is_finite().sum() >= MOSTLY * len(known):
        return "row number" if _counts_rows(numbers) else "number"
    if known.to_frame("v").select(seconds(pl.col("v")).is_not_null().all()).item():
        return "moment"
    if distinct > MANY_NAMES and distinct > DISTINCT * len(known):
        return "names or free text"
    return "category"


def label_kind(values: pl.Series, asked: str, name: str) -> str:
    """Of a label: binary, classes or number; raises ContractError where it can be none."""
    if asked not in KINDS:
        raise ContractError(f"columns.kind is {asked!r}; expected {', '.join(KINDS)}")
    known = values.drop_nulls()
    distinct = known.n_unique()
    if distinct < 2:
        what = f"is {known[0]!r} in every row" if distinct else "is empty in every row"
        raise ContractError(
            f"the label {name!r} {what}, so there is nothing to learn; expected two values at "
            "least. Give rows with other outcomes, or name another column: --set columns.label=NAME"
        )
    found = asked if asked != "auto" else _guessed(known, distinct)
    if found == "binary" and distinct > 2:
        shown = ", ".join(sorted(known.unique())[:5])
        raise ContractError(
            f"the label {name!r} has {distinct} values ({shown}, ...), and columns.kind asks for "
            "two; set it to classes or number"
        )
    if found == "classes" and distinct > MOST_CLASSES:
        raise ContractError(
            f"the label {name!r} has {distinct} values, more classes than {MOST_CLASSES}; is it an "
            "amount (--set columns.kind=number), or the wrong column (--set columns.label=NAME)?"
        )
    return "binary" if distinct == 2 and found == "classes" else found


def _guessed(known: pl.Series, distinct: int) -> str:
    if distinct == 2:
        return "binary"
    numbers = known.cast(pl.Float64, strict=False)
    if numbers.is_finite().sum() < MOSTLY * len(known):
        return "classes"
    whole = bool((numbers.drop_nulls() % 1 == 0).all())
    return "classes" if whole and distinct <= FEW_NUMBERS else "number"


def _counts_rows(numbers: pl.Series) -> bool:
    """Whether a column only numbers the rows: consecutive whole numbers, each once."""
    if numbers.n_unique() < len(numbers) or len(numbers) < MANY_NAMES:
        return False
    low, high = numbers.min(), numbers.max()
    assert isinstance(low, float)
    assert isinstance(high, float)
    return bool((numbers % 1 == 0).all()) and high - low + 1 == len(numbers)
