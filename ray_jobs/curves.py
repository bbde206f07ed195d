"""What the plots of an evaluation are drawn from: a few hundred numbers, whatever the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_jobs.metrics import equal_mass_bins
from ray_jobs.metrics.classes import confusion
from ray_jobs.target import Array, Target

CURVE_POINTS = 200
HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class Bin:
    """Rows of like prediction, for the reliability diagram."""

    prediction: float  # mean
    target: float  # mean
    rows: int


def reliability_bins(called: Array, true: Array) -> list[Bin]:
    bins = equal_mass_bins(called)
    counts = np.bincount(bins)
    held = np.flatnonzero(counts)
    predictions = np.bincount(bins, called)[held] / counts[held]
    targets = np.bincount(bins, true)[held] / counts[held]
    return [
        Bin(float(p), float(t), int(n))
        for p, t, n in zip(predictions, targets, counts[held], strict=True)
    ]


def curves(target: Target, truth: Array, prediction: Array) -> dict[str, Any]:
    """What a kind of target is drawn by; empty for the others."""
    drawn: dict[str, Any] = {"roc": [], "histogram": [], "confusion": [], "residuals": []}
    if target.kind == "binary":
        drawn |= {"roc": roc_points(truth, prediction), "histogram": _histogram(truth, prediction)}
    elif target.kind == "classes":
        drawn |= {"confusion": confusion(truth, prediction).tolist()}
    else:
        rows, edges = np.histogram(truth - prediction, bins=HISTOGRAM_BINS)
        drawn |= {"residuals": list(zip(edges[:-1].tolist(), rows.tolist(), strict=True))}
    return drawn


def _histogram(target: Array, prediction: Array) -> list[tuple[int, int]]:
    bins = np.minimum((prediction * HISTOGRAM_BINS).astype(int), HISTOGRAM_BINS - 1)
    right = np.bincount(bins, target >= 0.5, minlength=HISTOGRAM_BINS).astype(int)
    total = np.bincount(bins, minlength=HISTOGRAM_BINS)
    return [(int(n - r), int(r)) for n, r in zip(total, right, strict=True)]


def roc_points(target: Array, prediction: Array) -> list[tuple[float, float]]:
    """At most some hundred points of the ROC curve; none when there is one class."""
    order = np.argsort(-prediction, kind="stable")
    right = (target >= 0.5)[order]
    last = np.append(np.diff(prediction[order]) != 0, True)  # ties move together
    trues = np.append(0, np.cumsum(right)[last])
    falses = np.append(0, np.cumsum(~right)[last])
    if not trues[-1] or not falses[-1]:
        return []
    keep = np.unique(np.linspace(0, len(trues) - 1, CURVE_POINTS).astype(int))
    x, y = falses[keep] / falses[-1], trues[keep] / trues[-1]
    return list(zip(x.round(5).tolist(), y.round(5).tolist(), strict=True))
