"""What a model knows of its columns: their names, spreads and values, of the train split alone.

No row of the data can be read off it: each column is told apart from the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ray_jobs.errors import ContractError
from ray_jobs.families.tabular.table import PREFIX, features
from ray_jobs.target import Array, Target

MISSING = 0
UNSEEN = 1
LEVELS = 33  # quantiles kept of a number, its range included


@dataclass(frozen=True)
class Number:
    """A column of numbers."""

    name: str
    mean: float
    sd: float  # 1 for a constant
    quantiles: tuple[float, ...]  # LEVELS of them, ascending
    missing: float  # share of rows


@dataclass(frozen=True)
class Category:
    """A column of categories; value i has code i + 2."""

    name: str
    values: tuple[str, ...]  # in order of first sight
    shares: tuple[float, ...]  # of rows
    missing: float

    @cached_property
    def codes(self) -> dict[str, int]:
        return {value: i + 2 for i, value in enumerate(self.values)}


@dataclass(frozen=True)
class Vocabulary:
    """The label and the features of a model."""

    target: Target
    mean: float  # of a label that is a number, else 0
    sd: float  # the same, else 1
    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]

    @classmethod
    def of(cls, parts: Iterable[pl.DataFrame]) -> Vocabulary:
        """Read the vocabulary off the parts of the train split, and nothing else."""
        train = pl.concat(parts, how="diagonal")
        label = train.filter("scored")["label"]
        number = label.dtype == pl.Float64
        columns = {name: train[PREFIX + name] for name in features(train)}
        return cls(
            target=Target("number") if number else _outcomes(label),
            mean=_float(label.mean()) if number else 0.0,
            sd=_spread(label) if number else 1.0,
            numbers=tuple(_number(n, c) for n, c in columns.items() if c.dtype == pl.Float64),
            categories=tuple(_category(n, c) for n, c in columns.items() if c.dtype == pl.String),
        )

    @property
    def columns(self) -> tuple[Number | Category, ...]:
        """Every feature, numbers first: the order in which rows hold them."""
        return (*self.numbers, *self.categories)

    def truth(self, label: pl.Series) -> Array:
        """(N,) numbers, or for outcomes their place among those of the train split.

        Raises ContractError for an outcome that the train split has not.
        """
        if self.target.kind == "number":
            return label.to_numpy().astype(np.float64)
        places = {name: float(i) for i, name in enumerate(self.target.outcomes)}
        new = sorted(set(label.unique()) - set(places))
        if new:
            raise ContractError(
                f"label {new[0]!r} never occurs in the train split, which has "
                f"{', '.join(self.target.outcomes)}; give more rows of it, or leave them out"
            )
        return label.replace_strict(places, return_dtype=pl.Float64).to_numpy().astype(np.float64)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Vocabulary:
        target = Target(values["target"]["kind"], tuple(values["target"]["outcomes"]))
        numbers = tuple(
            Number(**{**n, "quantiles": tuple(n["quantiles"])}) for n in values["numbers"]
        )
        categories = tuple(
            Category(c["name"], tuple(c["values"]), tuple(c["shares"]), c["missing"])
            for c in values["categories"]
        )
        return cls(target, values["mean"], values["sd"], numbers, categories)


def target(vocabulary: Vocabulary) -> Target:
    """What a model with this vocabulary predicts."""
    return vocabulary.target


def targets(table: pl.DataFrame, vocabulary: Vocabulary) -> Array:
    """(N,) truth of the rows of a clean table."""
    return vocabulary.truth(table["label"])


def _outcomes(label: pl.Series) -> Target:
    # In this order "yes", "true", "pass" and 1 come second, and are what is told.
    names = tuple(sorted(label.unique()))
    if len(names) < 2:
        raise ContractError(
            f"every row of the train split has the label {names[0]!r}; expected two at least. Give "
            "more rows, or change --set split.test / split.validation"
        )
    return Target("binary" if len(names) == 2 else "classes", names)


def _number(name: str, column: pl.Series) -> Number:
    known = column.drop_nulls()
    if known.is_empty():
        return Number(name, 0.0, 1.0, (0.0,) * LEVELS, 1.0)
    levels = np.quantile(known.to_numpy(), np.linspace(0, 1, LEVELS))
    missing = column.null_count() / len(column)
    return Number(name, _float(known.mean()), _spread(known), tuple(levels.tolist()), missing)


def _category(name: str, column: pl.Series) -> Category:
    known = column.drop_nulls()
    values = known.unique(maintain_order=True)
    counts = dict(known.value_counts().iter_rows())
    shares = tuple(counts[v] / len(column) for v in values)
    return Category(name, tuple(values), shares, column.null_count() / len(column))


def _spread(values: pl.Series) -> float:
    return _float(values.std(ddof=0)) or 1.0


def _float(value: Any) -> float:
    return float(value) if value is not None else 0.0
