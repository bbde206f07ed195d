"""A figure of merit: its words, its direction, and how it is scored.

A metric is prepared once for its rows (sorted, binned) and then scored under
any weights, so that a bootstrap of a thousand replicates sorts once.
A figure that is undefined, such as the AUC of one class, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_jobs.target import Array

Scorer = Callable[[Array], float]  # (N,) weights of the rows, not negative -> the figure

BINS = 15  # of the calibration error; they hold equal numbers of rows


@dataclass(frozen=True)
class Metric:
    """One figure; `prepare` takes (N,) targets and (N,) or (N, C) predictions."""

    name: str
    title: str
    higher_is_better: bool
    prepare: Callable[[Array, Array], Scorer]
    chance: float | None = None  # what somebody gets who knows nothing of the rows

    def __call__(
        self, target: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None
    ) -> float:
        """The figure of these rows; NaN where it is undefined."""
        targets = np.asarray(target, np.float64)
        predictions = np.asarray(prediction, np.float64)
        weights = np.ones(len(targets)) if weight is None else np.asarray(weight, np.float64)
        assert weights.shape == targets.shape, f"{weights.shape} weights, {targets.shape} targets"
        return self.prepare(targets, predictions)(weights)


def mean_of(rows: Array) -> Scorer:
    """The weighted mean of a value that each row has, (N,)."""

    def score(weight: Array) -> float:
        total = weight.sum()
        return float(weight @ rows / total) if total > 0 else float("nan")

    return score


def ratio_of(part: Array, whole: Array) -> Scorer:
    """The weighted sum of one value over that of another, (N,) each; NaN over nothing."""

    def score(weight: Array) -> float:
        total = weight @ whole
        return float(weight @ part / total) if total > 0 else float("nan")

    return score


def mean_gap(prediction: Array, target: Array) -> Scorer:
    """The mean gap between prediction and target over bins of like prediction, (N,) each.

    Bins stay as they are for the rows at hand when those are weighted.
    """
    bins, gap = equal_mass_bins(prediction), prediction - target

    def score(weight: Array) -> float:
        total = weight.sum()
        gaps = np.bincount(bins, weight * gap, minlength=BINS)
        return float(np.abs(gaps).sum() / total) if total > 0 else float("nan")

    return score


def equal_mass_bins(prediction: Array, bins: int = BINS) -> NDArray[np.int64]:
    """(N,) bin of each row, ascending in prediction; equal predictions share a bin."""
    order, starts = _tied(prediction)
    sizes = np.diff(np.append(starts, len(order)))
    middle = (starts + sizes / 2) / max(len(order), 1)
    result = np.empty(len(order), np.int64)
    result[order] = np.repeat((middle * bins).astype(np.int64), sizes)
    return result


def _tied(prediction: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows in ascending order of prediction, and where each run of equal ones starts."""
    order = np.argsort(prediction, kind="stable")
    ascending = prediction[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = ascending[1:] != ascending[:-1]
    return order, np.flatnonzero(first)
