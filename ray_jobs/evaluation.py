"""How good a model is: figures with intervals, slices, curves, and paired differences.

One frame of scored rows goes in, with a group, a target and a column of
probabilities per model; every model is then judged on the very same rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ray_jobs.errors import ContractError
from ray_jobs.intervals import Draws, Interval, interval, replicates
from ray_jobs.metrics import METRICS, Array, equal_mass_bins

SLICE_METRICS = ("auc", "log_loss")
SMALLEST_SLICE = 50  # rows; with fewer, figures would only be noise
CURVE_POINTS = 200
UNDEFINED = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Slice:
    """A part of the rows; figures of a small one, or of one class, are undefined."""

    rows: int
    groups: int
    rate: float  # mean target
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class Bin:
    """Rows of like probability, for the reliability diagram."""

    prediction: float  # mean
    target: float  # mean
    rows: int


@dataclass(frozen=True)
class Evaluation:
    """One model on one set of rows."""

    rows: int
    groups: int
    rate: float  # mean target
    metrics: dict[str, Interval]
    slices: dict[str, dict[str, Slice]]  # column -> value -> figures
    calibration: list[Bin]
    roc: list[tuple[float, float]]  # (false, true) positive rates, ascending
    histogram: list[tuple[int, int]]  # (wrong, right) rows per twentieth of probability
    sample: str = ""  # digest of groups and targets: equal means the same rows
    replicates: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, undefined figures as null; the replicates stay behind."""
        values = {k: v for k, v in self.__dict__.items() if k != "replicates"}
        plain: dict[str, Any] = _plain(values)
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of `as_dict`; without replicates, so it cannot be compared again."""
        slices = {
            column: {value: _slice_from(s) for value, s in parts.items()}
            for column, parts in values["slices"].items()
        }
        parsed = {
            "metrics": {k: _interval_from(v) for k, v in values["metrics"].items()},
            "slices": slices,
            "calibration": [Bin(**b) for b in values["calibration"]],
            "roc": [(x, y) for x, y in values["roc"]],
            "histogram": [(x, y) for x, y in values["histogram"]],
        }
        return cls(**{**values, **parsed})


def evaluate(
    rows: pl.DataFrame, *, prediction: str = "prediction", slices: Sequence[str] = ()
) -> Evaluation:
    """Judge one column of probabilities in a frame with `group` and `target`.

    A slice column holds one name per row, or a list of names: a row of two
    skills then counts for both. An Enum column keeps its order in the report.
    Raises ContractError when there is nothing to evaluate.
    """
    if not len(rows):
        raise ContractError("no scored rows to evaluate; the test split is empty (see split.test)")
    target = rows["target"].to_numpy().astype(np.float64)
    predicted = rows[prediction].to_numpy().astype(np.float64)
    draws = Draws.of(rows["group"].to_numpy())
    metrics, figures = _judged(target, predicted, draws, tuple(METRICS))
    return Evaluation(
        rows=len(rows),
        groups=draws.groups,
        rate=float(target.mean()),
        metrics=metrics,
        slices={column: _slices(rows, prediction, column) for column in slices},
        calibration=_bins(target, predicted),
        roc=roc_points(target, predicted),
        histogram=_histogram(target, predicted),
        sample=hashlib.sha256(draws.codes.tobytes() + target.tobytes()).hexdigest(),
        replicates=figures,
    )


def compare(candidate: Evaluation, other: Evaluation) -> dict[str, Interval]:
    """Paired difference per metric, candidate minus other, on the very same rows."""
    assert candidate.sample == other.sample, "models compared on different rows"
    assert candidate.replicates, "an evaluation read back from JSON cannot be compared"
    return {
        name: interval(
            figure.value - other.metrics[name].value,
            candidate.replicates[name] - other.replicates[name],
        )
        for name, figure in candidate.metrics.items()
    }


def plain_intervals(intervals: dict[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Intervals as JSON values, undefined figures as null."""
    return {name: _plain(value) for name, value in intervals.items()}


def intervals_from(values: dict[str, dict[str, float | None]]) -> dict[str, Interval]:
    """The inverse of `plain_intervals`."""
    return {name: _interval_from(value) for name, value in values.items()}


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


def _judged(
    target: Array, prediction: Array, draws: Draws, names: Sequence[str]
) -> tuple[dict[str, Interval], dict[str, Array]]:
    points = {name: METRICS[name](target, prediction) for name in names}
    scorers = {name: METRICS[name].prepare(target, prediction) for name in names}
    figures = replicates(scorers, draws)
    if draws.groups < 2:
        # One learner drawn again and again would look certain.
        figures = {name: np.full_like(f, math.nan) for name, f in figures.items()}
    return {name: interval(points[name], figures[name]) for name in names}, figures


def _slices(rows: pl.DataFrame, prediction: str, column: str) -> dict[str, Slice]:
    part = rows.select("group", "target", prediction, column)
    if isinstance(part.schema[column], pl.List):
        part = part.explode(column)
    part = part.drop_nulls(column)
    sizes = part.group_by(column, maintain_order=True).len().sort("len", descending=True)
    if isinstance(part.schema[column], pl.Enum):
        sizes = sizes.sort(column)
    return {
        name: _slice(part.filter(pl.col(column) == name), prediction)
        for name in sizes[column].to_list()
    }


def _slice(rows: pl.DataFrame, prediction: str) -> Slice:
    target = rows["target"].to_numpy().astype(np.float64)
    draws = Draws.of(rows["group"].to_numpy())
    classes = len(np.unique(target >= 0.5))
    metrics = dict.fromkeys(SLICE_METRICS, UNDEFINED)
    if len(rows) >= SMALLEST_SLICE and classes == 2:
        predicted = rows[prediction].to_numpy().astype(np.float64)
        metrics, _ = _judged(target, predicted, draws, SLICE_METRICS)
    return Slice(len(rows), draws.groups, float(target.mean()), metrics)


def _bins(target: Array, prediction: Array) -> list[Bin]:
    bins = equal_mass_bins(prediction)
    counts = np.bincount(bins)
    held = np.flatnonzero(counts)
    predictions = np.bincount(bins, prediction)[held] / counts[held]
    targets = np.bincount(bins, target)[held] / counts[held]
    return [
        Bin(float(p), float(t), int(n))
        for p, t, n in zip(predictions, targets, counts[held], strict=True)
    ]


def _histogram(target: Array, prediction: Array) -> list[tuple[int, int]]:
    bins = np.minimum((prediction * 20).astype(int), 19)
    right = np.bincount(bins, target >= 0.5, minlength=20).astype(int)
    total = np.bincount(bins, minlength=20)
    return [(int(n - r), int(r)) for n, r in zip(total, right, strict=True)]


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _interval_from(values: dict[str, float | None]) -> Interval:
    value, low, high = (values[k] for k in ("value", "low", "high"))
    return Interval(_defined(value), _defined(low), _defined(high))


def _defined(value: float | None) -> float:
    return math.nan if value is None else value


def _slice_from(values: dict[str, Any]) -> Slice:
    metrics = {k: _interval_from(v) for k, v in values["metrics"].items()}
    return Slice(**{**values, "metrics": metrics})
