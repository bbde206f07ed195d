"""Figures for predicted numbers, in the unit of the target unless said otherwise."""

from __future__ import annotations

import numpy as np

from ray_jobs.metrics.figure import Metric, Scorer, mean_gap, mean_of
from ray_jobs.target import Array


def prepared_rmse(target: Array, prediction: Array) -> Scorer:
    """Root of the mean squared error."""
    squared = mean_of((prediction - target) ** 2)
    return lambda weight: float(np.sqrt(squared(weight)))


def prepared_mae(target: Array, prediction: Array) -> Scorer:
    """Mean absolute error."""
    return mean_of(np.abs(prediction - target))


def prepared_r2(target: Array, prediction: Array) -> Scorer:
    """Share of the targets' variance that is explained; below 0 the mean would do better."""
    error = mean_of((prediction - target) ** 2)

    def score(weight: Array) -> float:
        spread = _variance(target, weight)
        return float(1 - error(weight) / spread) if spread > 0 else float("nan")

    return score


def prepared_calibration_error(target: Array, prediction: Array) -> Scorer:
    """Mean gap between prediction and target over bins, in standard deviations of the target."""
    gap = mean_gap(prediction, target)

    def score(weight: Array) -> float:
        spread = _variance(target, weight)
        return float(gap(weight) / np.sqrt(spread)) if spread > 0 else float("nan")

    return score


def checked(target: Array, prediction: Array) -> None:
    """Our own fault, where it fails: every row has a number and a finite prediction."""
    assert target.ndim == 1, f"targets have shape {target.shape}"
    assert target.shape == prediction.shape, f"{target.shape} and {prediction.shape}"
    assert np.isfinite(target).all(), "targets that are no numbers"
    assert np.isfinite(prediction).all(), "predictions that are no numbers"


def _variance(target: Array, weight: Array) -> float:
    total = weight.sum()
    if total <= 0:
        return 0.0
    mean = weight @ target / total
    # A constant's variance is rounding noise, and no figure may be read off it.
    variance = float(weight @ (target - mean) ** 2 / total)
    return variance if variance > 1e-12 * (mean**2 + 1e-300) else 0.0


rmse = Metric("rmse", "RMSE", False, prepared_rmse)
mae = Metric("mae", "MAE", False, prepared_mae)
r2 = Metric("r2", "R²", True, prepared_r2, chance=0.0)
calibration_error = Metric(
    "calibration_error", "Calibration error (in sd)", False, prepared_calibration_error
)
METRICS = (r2, rmse, mae, calibration_error)
