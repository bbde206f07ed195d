"""How good a model is: figures with intervals, slices, curves, and paired differences.

One frame of scored rows goes in, with a group and a target, and beside it the
predictions of each model, so that every model is judged on the very same rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import polars as pl

from ray_jobs.curves import Bin, curves, reliability_bins
from ray_jobs.errors import ContractError
from ray_jobs.intervals import Draws, Interval, interval, replicates
from ray_jobs.metrics import KINDS, Kind, calibration_by_chance
from ray_jobs.target import Array, Target

SMALLEST_SLICE = 50  # rows; with fewer, figures would only be noise
UNDEFINED = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Slice:
    """A part of the rows; figures of a small one, or of one with one outcome, are undefined."""

    rows: int
    groups: int
    rate: float  # mean target, or share of the commonest class
    metrics: dict[str, Interval]
    replicates: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Evaluation:
    """One model on one set of rows. Curves that a kind of target has not are empty."""

    kind: str  # of the target, as in metrics.KINDS
    outcomes: tuple[str, ...]  # names, in the order of predictions
    rows: int
    groups: int
    rate: float  # mean target, or share of the commonest class
    metrics: dict[str, Interval]
    slices: dict[str, dict[str, Slice]]  # column -> value -> figures
    calibration: list[Bin]
    calibration_by_chance: float  # the error that luck alone may show on so many rows
    roc: list[tuple[float, float]]  # (false, true) positive rates, ascending
    histogram: list[tuple[int, int]]  # (wrong, right) rows per twentieth of probability
    confusion: list[list[int]]  # rows of each class, by the class they were called
    residuals: list[tuple[float, int]]  # (lower edge of a bin of target - prediction, rows)
    sample: str = ""  # digest of groups and targets: equal means the same rows
    replicates: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def of_kind(self) -> Kind:
        return KINDS[self.kind]

    @property
    def headline(self) -> Interval:
        """The figure that the gate reads."""
        return self.metrics[self.of_kind.headline]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, undefined figures as null; the replicates stay behind."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of `as_dict`; without replicates, so it cannot be compared again."""
        slices = {
            column: {value: _slice_from(s) for value, s in parts.items()}
            for column, parts in values["slices"].items()
        }
        parsed = {
            "outcomes": tuple(values["outcomes"]),
            "metrics": {k: _interval_from(v) for k, v in values["metrics"].items()},
            "slices": slices,
            "calibration": [Bin(**b) for b in values["calibration"]],
            "roc": [(x, y) for x, y in values["roc"]],
            "histogram": [(x, y) for x, y in values["histogram"]],
            "residuals": [(edge, rows) for edge, rows in values["residuals"]],
        }
        return cls(**{**values, **parsed})


def evaluate(
    rows: pl.DataFrame,
    prediction: Array,
    target: Target,
    *,
    slices: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> Evaluation:
    """Judge predictions, (N,) or (N, C), of the rows of a frame with `group` and `target`.

    A slice column holds one name per row, or a list of names: a row of two
    skills then counts for both. An Enum column keeps its order in the report.
    All figures of the target's kind are computed, or `metrics` alone.
    Raises ContractError when there is nothing to evaluate.
    """
    if not len(rows):
        raise ContractError("no scored rows to evaluate; the test split is empty (see split.test)")
    kind = KINDS[target.kind]
    truth = rows["target"].to_numpy().astype(np.float64)
    predicted = prediction.astype(np.float64)
    kind.checked(truth, predicted)
    draws = Draws.of(rows["group"].to_numpy())
    figures, drawn = _judged(kind, truth, predicted, draws, metrics or tuple(kind.metrics))
    return Evaluation(
        kind=target.kind,
        outcomes=target.outcomes,
        rows=len(rows),
        groups=draws.groups,
        rate=_rate(target, truth),
        metrics=figures,
        slices={column: _slices(rows, predicted, target, column) for column in slices},
        calibration=reliability_bins(*kind.reliability(truth, predicted)),
        calibration_by_chance=calibration_by_chance(kind, truth, predicted),
        **curves(target, truth, predicted),
        sample=hashlib.sha256(draws.codes.tobytes() + truth.tobytes()).hexdigest(),
        replicates=drawn,
    )


def compare(candidate: Evaluation, other: Evaluation) -> dict[str, Interval]:
    """Paired difference per metric, candidate minus other, on the very same rows."""
    assert candidate.sample == other.sample, "models compared on different rows"
    assert candidate.replicates, "an evaluation read back from JSON cannot be compared"
    return {name: _difference(candidate, other, name) for name in candidate.metrics}


def compare_slices(candidate: Evaluation, other: Evaluation) -> dict[str, dict[str, Interval]]:
    """Paired difference of each slice's first figure, column -> value -> interval."""
    assert candidate.sample == other.sample, "models compared on different rows"
    name = candidate.of_kind.of_slice[0]
    return {
        column: {
            value: _difference(part, other.slices[column][value], name)
            for value, part in parts.items()
            if part.replicates
        }
        for column, parts in candidate.slices.items()
    }


def plain_intervals(intervals: dict[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Intervals as JSON values, undefined figures as null."""
    return {name: _plain(value) for name, value in intervals.items()}


def intervals_from(values: dict[str, dict[str, float | None]]) -> dict[str, Interval]:
    """The inverse of `plain_intervals`."""
    return {name: _interval_from(value) for name, value in values.items()}


def _difference(mine: Evaluation | Slice, other: Evaluation | Slice, name: str) -> Interval:
    value = mine.metrics[name].value - other.metrics[name].value
    return interval(value, mine.replicates[name] - other.replicates[name])


def _judged(
    kind: Kind, target: Array, prediction: Array, draws: Draws, names: Sequence[str]
) -> tuple[dict[str, Interval], dict[str, Array]]:
    scorers = {name: kind.metrics[name].prepare(target, prediction) for name in names}
    ones = np.ones(len(target))
    points = {name: score(ones) for name, score in scorers.items()}
    figures = replicates(scorers, draws)
    if draws.groups < 2:
        # One learner drawn again and again would look certain.
        figures = {name: np.full_like(f, math.nan) for name, f in figures.items()}
    return {name: interval(points[name], figures[name]) for name in names}, figures


def _rate(target: Target, truth: Array) -> float:
    if target.kind == "classes":
        return float(np.bincount(truth.astype(int)).max() / len(truth))
    return float(truth.mean())


def _slices(rows: pl.DataFrame, prediction: Array, target: Target, column: str) -> dict[str, Slice]:
    part = rows.select("group", "target", column).with_row_index("row")
    if isinstance(part.schema[column], pl.List):
        part = part.explode(column)
    part = part.drop_nulls(column)
    sizes = part.group_by(column, maintain_order=True).len().sort("len", descending=True)
    if isinstance(part.schema[column], pl.Enum):
        sizes = sizes.sort(column)
    slices = {}
    for value in sizes[column].to_list():
        chosen = part.filter(pl.col(column) == value)
        # JSON and people know a part by its words, whatever type its column has.
        slices[str(value)] = _slice(chosen, prediction[chosen["row"].to_numpy()], target)
    return slices


def _slice(rows: pl.DataFrame, prediction: Array, target: Target) -> Slice:
    kind = KINDS[target.kind]
    truth = rows["target"].to_numpy().astype(np.float64)
    draws = Draws.of(rows["group"].to_numpy())
    metrics = dict.fromkeys(kind.of_slice, UNDEFINED)
    figures: dict[str, Array] = {}
    if len(rows) >= SMALLEST_SLICE and _differ(target, truth):
        metrics, figures = _judged(kind, truth, prediction, draws, kind.of_slice)
    return Slice(len(rows), draws.groups, _rate(target, truth), metrics, figures)


def _differ(target: Target, truth: Array) -> bool:
    """Whether there is anything to tell apart."""
    return len(np.unique(truth >= 0.5 if target.kind == "binary" else truth)) > 1


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        names = [f.name for f in fields(value) if f.name != "replicates"]
        return {name: _plain(getattr(value, name)) for name in names}
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
