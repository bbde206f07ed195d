"""Intervals by the bootstrap over groups: whole learners are drawn, not single answers.

Answers of one learner hang together, so drawing answers would promise too much.
The same seed draws the same groups: figures of two models on the same rows
are paired replicate by replicate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_jobs.metrics.figure import Scorer
from ray_jobs.target import Array

REPLICATES = 1000
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Draws:
    """The rows' groups and how they are drawn: with replacement, as many as there are."""

    codes: NDArray[np.int64]  # (N,) group of each row, 0..groups-1
    groups: int
    replicates: int = REPLICATES
    seed: int = 0

    @classmethod
    def of(cls, groups: NDArray[np.generic], *, replicates: int = REPLICATES) -> Draws:
        """Draws for rows whose groups are named; the order of first sight numbers them."""
        _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        # By first sight and not by name, so that renaming learners changes no figure.
        rank[np.argsort(first)] = np.arange(len(first))
        return cls(rank[codes], len(first), replicates)


def replicates(scorers: Mapping[str, Scorer], draws: Draws) -> dict[str, Array]:
    """(replicates,) figures per scorer, each replicate under one draw of the groups.

    Holds one draw at a time, so memory stays that of the rows themselves.
    """
    rng = np.random.default_rng(draws.seed)
    figures = {name: np.empty(draws.replicates) for name in scorers}
    for i in range(draws.replicates):
        drawn = rng.integers(0, draws.groups, draws.groups)
        counts = np.bincount(drawn, minlength=draws.groups).astype(np.float64)
        weight = counts[draws.codes]
        for name, score in scorers.items():
            figures[name][i] = score(weight)
    return figures


def interval(value: float, figures: Array) -> Interval:
    """The percentile interval round a figure; undefined replicates are left out.

    Resampling adds noise, which can only widen a gap such as the calibration
    error, so its percentiles may lie above the figure: the figure is included.
    """
    defined = figures[~np.isnan(figures)]
    if np.isnan(value) or not len(defined):
        return Interval(value, float("nan"), float("nan"))
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))
