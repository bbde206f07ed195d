"""Figures for probabilities of several classes: (N,) class numbers, (N, C) probabilities.

Macro figures are plain means over the classes that occur, so that a rare class
counts as much as a common one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.metrics import binary
from ray_jobs.metrics.binary import CLIP
from ray_jobs.metrics.figure import Metric, Scorer, mean_gap, mean_of
from ray_jobs.target import Array

Counts = NDArray[Any]  # (C,) weighted rows of each class


def prepared_auc(target: Array, prediction: Array) -> Scorer:
    """Mean over classes of the AUC of each class against the rest."""
    scorers = [
        binary.prepared_auc((target == c).astype(np.float64), prediction[:, c])
        for c in range(prediction.shape[1])
    ]

    def score(weight: Array) -> float:
        return _mean(np.array([scorer(weight) for scorer in scorers]))

    return score


def prepared_log_loss(target: Array, prediction: Array) -> Scorer:
    """Cross-entropy in nats per row."""
    chosen = np.take_along_axis(prediction, target.astype(np.int64)[:, None], axis=1)[:, 0]
    return mean_of(-np.log(np.clip(chosen, CLIP, 1.0)))


def prepared_brier(target: Array, prediction: Array) -> Scorer:
    """Mean squared distance between probabilities and outcome, summed over classes; 0 to 2."""
    return mean_of(((prediction - _one_hot(target, prediction)) ** 2).sum(axis=1))


def prepared_accuracy(target: Array, prediction: Array) -> Scorer:
    """Share of rows whose likeliest class is theirs."""
    return mean_of((prediction.argmax(axis=1) == target).astype(np.float64))


def prepared_precision(target: Array, prediction: Array) -> Scorer:
    """Mean over classes of the share that is of a class, of what was called so."""
    return _macro(target, prediction, lambda hit, called, _: _share(hit, called))


def prepared_recall(target: Array, prediction: Array) -> Scorer:
    """Mean over classes of the share that was called a class, of what is of it."""
    return _macro(target, prediction, lambda hit, _, true: _share(hit, true))


def prepared_macro_f1(target: Array, prediction: Array) -> Scorer:
    """Mean over classes of the harmonic mean of precision and recall."""
    return _macro(target, prediction, lambda hit, called, true: _share(2 * hit, called + true))


def prepared_calibration_error(target: Array, prediction: Array) -> Scorer:
    """Mean gap between the likeliest class's probability and how often it is right (Guo 2017)."""
    return mean_gap(*called_and_true(target, prediction))


def called_and_true(target: Array, prediction: Array) -> tuple[Array, Array]:
    """(N,) probability of the likeliest class, and 1 where it is the row's."""
    right = prediction.argmax(axis=1) == target
    return prediction.max(axis=1), right.astype(np.float64)


def confusion(target: Array, prediction: Array) -> NDArray[np.int64]:
    """(C, C) rows of each class, by the class they were called."""
    classes = prediction.shape[1]
    cells = target.astype(np.int64) * classes + prediction.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def checked(target: Array, prediction: Array) -> None:
    """Our own fault, where it fails: rows have a class, and at most 1 to share."""
    assert prediction.ndim == 2, f"predictions have shape {prediction.shape}"
    assert target.shape == prediction.shape[:1], f"{target.shape} and {prediction.shape}"
    assert np.all((target >= 0) & (target < prediction.shape[1])), "a class that is none"
    assert np.all((prediction >= 0) & (prediction <= 1 + 1e-6)), "predictions outside 0..1, or NaN"
    # Less than 1 where a model knows outcomes that the target has not.
    assert np.all(prediction.sum(axis=1) <= 1 + 1e-3), "predictions that sum to more than 1"


def _macro(
    target: Array, prediction: Array, figure: Callable[[Counts, Counts, Counts], Counts]
) -> Scorer:
    """The mean of a figure of each class, made of its rows: found, called so, and so in truth."""
    size = prediction.shape[1]
    true, called = target.astype(np.int64), prediction.argmax(axis=1)
    right = (true == called).astype(np.float64)

    def score(weight: Array) -> float:
        hits = np.bincount(true, weight * right, minlength=size)
        of_class = np.bincount(true, weight, minlength=size)
        as_class = np.bincount(called, weight, minlength=size)
        return _mean(figure(hits, as_class, of_class)[(of_class > 0) | (as_class > 0)])

    return score


def _share(part: Counts, whole: Counts) -> Counts:
    """Part of whole; 0 where there is no whole, as scikit-learn counts it."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _mean(figures: Counts) -> float:
    defined = figures[~np.isnan(figures)]
    return float(defined.mean()) if len(defined) else float("nan")


def _one_hot(target: Array, prediction: Array) -> Array:
    hot: Array = (target[:, None] == np.arange(prediction.shape[1])).astype(np.float64)
    return hot


auc = Metric("auc", "AUC (macro)", True, prepared_auc, chance=0.5)
log_loss = Metric("log_loss", "Log loss", False, prepared_log_loss)
brier = Metric("brier", "Brier score", False, prepared_brier)
accuracy = Metric("accuracy", "Accuracy", True, prepared_accuracy)
precision = Metric("precision", "Precision (macro)", True, prepared_precision)
recall = Metric("recall", "Recall (macro)", True, prepared_recall)
macro_f1 = Metric("macro_f1", "F1 (macro)", True, prepared_macro_f1)
calibration_error = Metric(
    "calibration_error", "Calibration error", False, prepared_calibration_error
)
METRICS = (auc, log_loss, brier, accuracy, precision, recall, macro_f1, calibration_error)
