"""Figures of merit by kind of target: one of two outcomes, one of several classes, a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_jobs.metrics import binary, classes, numbers
from ray_jobs.metrics.figure import BINS, Metric, Scorer, equal_mass_bins
from ray_jobs.target import Array

__all__ = ["BINS", "KINDS", "Kind", "Metric", "Scorer", "calibration_by_chance", "equal_mass_bins"]

CALIBRATED_DRAWS = 200  # of outcomes, to learn what a calibrated model's error would be
LUCK = 0.95  # quantile of those


@dataclass(frozen=True)
class Kind:
    """The figures of one kind of target, and how its calibration is looked at."""

    metrics: Mapping[str, Metric]
    headline: str  # which the gate reads; higher is better
    of_slice: tuple[str, ...]  # figures of a part of the rows; the gate reads the first
    checked: Callable[[Array, Array], None]  # asserts that (targets, predictions) are such
    # (targets, predictions) -> what was called and what came true, (N,) each
    reliability: Callable[[Array, Array], tuple[Array, Array]]
    # (targets, predictions) -> targets as they might be, were the predictions calibrated
    drawn: Callable[[Array, Array, np.random.Generator], Array]


def calibration_by_chance(kind: Kind, target: Array, prediction: Array) -> float:
    """The calibration error that a calibrated model exceeds once in 20 times on these rows.

    Few rows show gaps by luck alone; how large, is told by outcomes drawn from the
    predictions themselves (consistency resampling, Bröcker and Smith 2007).
    """
    error, random = kind.metrics["calibration_error"], np.random.default_rng(0)
    draws = (kind.drawn(target, prediction, random) for _ in range(CALIBRATED_DRAWS))
    return float(np.nanquantile([error(drawn, prediction) for drawn in draws], LUCK))


def _as_they_are(target: Array, prediction: Array) -> tuple[Array, Array]:
    return prediction, target


def _coins(_: Array, prediction: Array, random: np.random.Generator) -> Array:
    return (random.random(len(prediction)) < prediction).astype(np.float64)


def _dice(_: Array, prediction: Array, random: np.random.Generator) -> Array:
    thrown = random.random((len(prediction), 1)) > prediction.cumsum(axis=1)
    # Rounding may leave a row's sum below the throw.
    chosen: Array = np.minimum(thrown.sum(axis=1), prediction.shape[1] - 1).astype(np.float64)
    return chosen


def _shuffled_errors(target: Array, prediction: Array, random: np.random.Generator) -> Array:
    errors = target - prediction
    shuffled: Array = prediction + random.permutation(errors - errors.mean())
    return shuffled


def _kind(
    metrics: tuple[Metric, ...], headline: str, of_slice: tuple[str, ...], **parts: Any
) -> Kind:
    return Kind({metric.name: metric for metric in metrics}, headline, of_slice, **parts)


KINDS: dict[str, Kind] = {
    "binary": _kind(
        binary.METRICS,
        "auc",
        ("auc", "log_loss"),
        checked=binary.checked,
        reliability=_as_they_are,
        drawn=_coins,
    ),
    "classes": _kind(
        classes.METRICS,
        "auc",
        ("accuracy", "log_loss"),
        checked=classes.checked,
        reliability=classes.called_and_true,
        drawn=_dice,
    ),
    "number": _kind(
        numbers.METRICS,
        "r2",
        ("r2", "rmse"),
        checked=numbers.checked,
        reliability=_as_they_are,
        drawn=_shuffled_errors,
    ),
}
