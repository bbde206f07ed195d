"""Numbers as logs write them."""

from __future__ import annotations

import polars as pl

COMMA = r"^[+-]?\d*,\d+$"
THOUSANDS = r"^[+-]?\d{1,3},\d{3}$"
NUMBER = r"^[+-]?\d+$"


def with_points(texts: pl.Series) -> pl.Series:
    """A column of numbers with decimal commas, with points; any other as it is.

    Where each comma might part thousands, nobody can tell, and the column stays.
    """
    known = texts.drop_nulls()
    if not known.str.contains(",", literal=True).any():
        return texts
    comma = known.str.contains(COMMA)
    numbers = (comma | known.str.contains(NUMBER)).all()
    if not numbers or known.filter(comma).str.contains(THOUSANDS).all():
        return texts
    return texts.str.replace(",", ".", literal=True)
