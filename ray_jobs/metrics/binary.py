"""Figures for the probability of one of two outcomes; targets may be partial credit, 0 to 1."""

from __future__ import annotations

import numpy as np

from ray_jobs.metrics.figure import Metric, Scorer, mean_gap, mean_of, ratio_of
from ray_jobs.target import Array

CLIP = 1e-7  # log loss: a probability of exactly 0 or 1 costs at most 16.1, not infinity


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
    return mean_of(-(target * np.log(p) + (1 - target) * np.log1p(-p)))


def prepared_brier(target: Array, prediction: Array) -> Scorer:
    """Mean squared distance between probability and outcome."""
    return mean_of((prediction - target) ** 2)


def prepared_accuracy(target: Array, prediction: Array) -> Scorer:
    """Share of rows where probability and outcome lie on the same side of one half."""
    return mean_of(((prediction >= 0.5) == (target >= 0.5)).astype(np.float64))


def prepared_precision(target: Array, prediction: Array) -> Scorer:
    """Share that came true of what was called likelier than not."""
    called, true = _decided(target, prediction)
    return ratio_of(called * true, called)


def prepared_recall(target: Array, prediction: Array) -> Scorer:
    """Share that was called likelier than not of what came true."""
    called, true = _decided(target, prediction)
    return ratio_of(called * true, true)


def prepared_f1(target: Array, prediction: Array) -> Scorer:
    """Harmonic mean of precision and recall."""
    called, true = _decided(target, prediction)
    return ratio_of(2 * called * true, called + true)


def prepared_calibration_error(target: Array, prediction: Array) -> Scorer:
    """Expected calibration error: mean gap between probability and frequency over bins."""
    return mean_gap(prediction, target)


def checked(target: Array, prediction: Array) -> None:
    """Our own fault, where it fails: probabilities and outcomes lie in 0..1."""
    assert target.ndim == 1, f"targets have shape {target.shape}"
    assert target.shape == prediction.shape, f"{target.shape} and {prediction.shape}"
    for name, values in (("targets", target), ("predictions", prediction)):
        assert np.all((values >= 0) & (values <= 1)), f"{name} outside 0..1, or NaN"


def _decided(target: Array, prediction: Array) -> tuple[Array, Array]:
    return (prediction >= 0.5).astype(np.float64), (target >= 0.5).astype(np.float64)


auc = Metric("auc", "AUC", True, prepared_auc, chance=0.5)
log_loss = Metric("log_loss", "Log loss", False, prepared_log_loss)
brier = Metric("brier", "Brier score", False, prepared_brier)
accuracy = Metric("accuracy", "Accuracy", True, prepared_accuracy)
precision = Metric("precision", "Precision", True, prepared_precision)
recall = Metric("recall", "Recall", True, prepared_recall)
f1 = Metric("f1", "F1", True, prepared_f1)
calibration_error = Metric(
    "calibration_error", "Calibration error", False, prepared_calibration_error
)
METRICS = (auc, log_loss, brier, accuracy, precision, recall, f1, calibration_error)
