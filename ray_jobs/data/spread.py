"""How numbers spread, in bounded memory: weighted points that add up over parts of a table.

Few different numbers are kept as they are. Of many, neighbours are put together at
their mean, so that no rank moves by more than one in POINTS; what many rows hold
stays exact (after the t-digest; Dunning and Ertl, 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

POINTS = 1024
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """Numbers, ascending, and how often each is held."""

    values: list[float]
    rows: list[int]

    @classmethod
    def of(cls, numbers: pl.Series) -> Spread:
        """Of finite numbers."""
        return _thinned(*np.unique(numbers.cast(pl.Float64).to_numpy(), return_counts=True))

    @classmethod
    def together(cls, spreads: Sequence[Spread]) -> Spread:
        """Of all the rows that some spreads are of."""
        values, place = np.unique([v for s in spreads for v in s.values], return_inverse=True)
        rows = np.zeros(len(values), np.int64)
        np.add.at(rows, place, np.array([r for s in spreads for r in s.rows], np.int64))
        return _thinned(values, rows)

    @property
    def total(self) -> int:
        return sum(self.rows)

    def quantiles(self, shares: Sequence[float] = QUANTILES) -> list[float]:
        """The smallest number that such a share of the rows does not exceed, for each."""
        reached = np.cumsum(self.rows) / self.total
        found = np.searchsorted(reached, np.array(shares) - 1e-12)
        return [self.values[place] for place in np.minimum(found, len(self.values) - 1)]

    def edges(self, bins: int) -> list[float]:
        """Upper ends of about so many bins of equal weight; a number of more is a bin alone."""
        begin = _blocks(np.array(self.rows), bins)
        return [self.values[end - 1] for end in [*begin[1:], len(self.values)]]

    def counts(self, edges: Sequence[float]) -> Counts:
        """Rows up to each edge and above the one before; one more holds those above all."""
        place = np.searchsorted(edges, self.values)
        return np.bincount(place, self.rows, len(edges) + 1).astype(np.int64)

    def histogram(self, bins: int | Sequence[float]) -> tuple[list[float], list[int]]:
        """Edges, so many of equal width or as given, and the rows between each and the next."""
        rows, edges = np.histogram(self.values, bins, weights=self.rows)
        return edges.tolist(), rows.astype(np.int64).tolist()


@dataclass(frozen=True)
class Numbers:
    """What is known of some numbers; all of it exact, but for the spread of many."""

    rows: int
    mean: float
    squares: float  # sum of squared distances from the mean
    low: float
    high: float
    spread: Spread

    @classmethod
    def of(cls, numbers: pl.Series) -> Numbers | None:
        """Of finite numbers; nothing where there is none."""
        found: Floats = numbers.cast(pl.Float64).to_numpy()
        if not len(found):
            return None
        mean = float(found.mean())
        squares = float(((found - mean) ** 2).sum())
        low, high = float(found.min()), float(found.max())
        return cls(len(found), mean, squares, low, high, Spread.of(numbers))

    @classmethod
    def together(cls, parts: Sequence[Numbers | None]) -> Numbers | None:
        """Of all the rows of some parts (Chan, Golub and LeVeque, 1983)."""
        some = [part for part in parts if part is not None]
        if not some:
            return None
        rows = sum(part.rows for part in some)
        mean = sum(part.mean * (part.rows / rows) for part in some)
        squares = sum(part.squares + part.rows * (part.mean - mean) ** 2 for part in some)
        low, high = min(part.low for part in some), max(part.high for part in some)
        return cls(rows, mean, squares, low, high, Spread.together([p.spread for p in some]))

    @classmethod
    def loads(cls, value: Mapping[str, Any]) -> Numbers:
        return cls(**{**value, "spread": Spread(**value["spread"])})

    @property
    def deviation(self) -> float:
        """Standard deviation of the population they are a sample of."""
        return float(np.sqrt(self.squares / max(self.rows - 1, 1)))


def _thinned(values: Floats, rows: Counts) -> Spread:
    """Different ascending values with their rows, as a spread of not too many."""
    if len(values) > POINTS:
        begin = _blocks(rows, POINTS)
        alone = np.diff([*begin, len(values)]) == 1
        summed = np.add.reduceat(rows, begin)
        means = np.add.reduceat(values * rows, begin) / summed
        # Divided again, a number need not be what it was.
        values, rows = np.where(alone, values[begin], means), summed
    return Spread(values.tolist(), rows.tolist())


def _blocks(rows: Counts, blocks: int) -> NDArray[np.intp]:
    """Where each block of equal weight begins; a point that weighs as much is a block alone."""
    share = rows.sum() / blocks
    heavy = rows >= share
    place = np.floor((np.cumsum(rows) - rows / 2) / share)
    begins = np.concatenate([[True], heavy[1:] | heavy[:-1] | (place[1:] != place[:-1])])
    return np.flatnonzero(begins)
