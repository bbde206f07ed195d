"""Figures of merit for probabilities: what each means, and which way is better.

A metric is prepared once for its rows (sorted, binned) and then scored under
any weights, so that a bootstrap of a thousand replicates sorts once.
A figure that is undefined, such as the AUC of one class, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Scorer = Callable[[Array], float]  # (N,) weights of the rows, not negative -> the figure

BINS = 15  # of the calibration error; they hold equal numbers of rows
CLIP = 1e-7  # log loss: a probability of exactly 0 or 1 costs at most 16.1, not infinity


@dataclass(frozen=True)
class Metric:
    """One figure: its words, its direction, and how it is scored."""

    name: str
    title: str
    higher_is_better: bool
    prepare: Callable[[Array, Array], Scorer]  # (N,) targets in 0..1, (N,) probabilities

    def __call__(
        self, target: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None
    ) -> float:
        """The figure of these rows; NaN where it is undefined."""
        targets, predictions = _checked(target, prediction)
        weights = np.ones(len(targets)) if weight is None else np.asarray(weight, np.float64)
        assert weights.shape == targets.shape, f"{weights.shape} weights, {targets.shape} targets"
        return self.prepare(targets, predictions)(weights)


def prepared_auc(target: Array, prediction: Array) -> Scorer:
    """Area under the ROC curve: how often a right answer is ranked above a wrong one.

    Ties count half. Partial credit counts as right from one half on.
    """
    order = np.argsort(prediction, kind="stable")
    is_right = (target >= 0.5)[order]
    right, wrong = order[is_right], order[~is_right]
    below = np.searchsorted(prediction[wrong], prediction[right], "left")
    level = np.searchsorted(prediction[wrong], prediction[right], "right")

    def score(weight: Array) -> float:
        cumulated = np.zeros(len(wrong) + 1)
        np.cumsum(weight.take(wrong), out=cumulated[1:])
        rights = weight.take(right)
        pairs = rights.sum() * cumulated[-1]
        beaten = rights @ cumulated.take(below) + rights @ cumulated.take(level)
        return float(beaten / 2 / pairs) if pairs > 0 else float("nan")

    return score


def prepared_log_loss(target: Array, prediction: Array) -> Scorer:
    """Cross-entropy in nats per row, also against partial credit."""
    p = np.clip(prediction, CLIP, 1 - CLIP)
    return _mean_of(-(target * np.log(p) + (1 - target) * np.log1p(-p)))


def prepared_brier(target: Array, prediction: Array) -> Scorer:
    """Mean squared distance between probability and outcome."""
    return _mean_of((prediction - target) ** 2)


def prepared_accuracy(target: Array, prediction: Array) -> Scorer:
    """Share of rows where probability and outcome lie on the same side of one half."""
    return _mean_of(((prediction >= 0.5) == (target >= 0.5)).astype(np.float64))


def prepared_calibration_error(target: Array, prediction: Array) -> Scorer:
    """Expected calibration error: mean gap between probability and frequency over bins.

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


def _mean_of(rows: Array) -> Scorer:
    def score(weight: Array) -> float:
        total = weight.sum()
        return float(weight @ rows / total) if total > 0 else float("nan")

    return score


def _checked(target: ArrayLike, prediction: ArrayLike) -> tuple[Array, Array]:
    targets = np.asarray(target, np.float64)
    predictions = np.asarray(prediction, np.float64)
    assert targets.ndim == 1, f"targets have shape {targets.shape}"
    assert targets.shape == predictions.shape, f"{targets.shape} and {predictions.shape}"
    for name, values in (("targets", targets), ("predictions", predictions)):
        assert np.all((values >= 0) & (values <= 1)), f"{name} outside 0..1, or NaN"
    return targets, predictions


auc = Metric("auc", "AUC", True, prepared_auc)
log_loss = Metric("log_loss", "Log loss", False, prepared_log_loss)
brier = Metric("brier", "Brier score", False, prepared_brier)
accuracy = Metric("accuracy", "Accuracy", True, prepared_accuracy)
calibration_error = Metric(
    "calibration_error", "Calibration error", False, prepared_calibration_error
)

METRICS: dict[str, Metric] = {
    m.name: m for m in (auc, log_loss, brier, accuracy, calibration_error)
}
