"""What became of predictions: each outcome once, how versions have fared, and a log to learn from.

The log's learners are aliases, which ingestion takes for the learners they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import polars as pl

from ray_jobs import manifest, store
from ray_jobs.errors import UsageError
from ray_jobs.intervals import Draws, Interval, interval, replicates
from ray_jobs.metrics import KINDS
from ray_jobs.serving.feedback import FOLDER, SCHEMA

LOGS = "outcomes"  # folder of the store
ENOUGH = 10  # learners, below whom no interval is told
ORDER = ("recorded", "id", "position")


@dataclass(frozen=True)
class Told:
    """All that a service was told."""

    rows: pl.DataFrame  # SCHEMA, each outcome once, in the order they came
    again: int  # told more than once, alike
    otherwise: int  # told more than once, and not alike: the first holds


@dataclass(frozen=True)
class Fared:
    """How the predictions of one version have fared."""

    version: str
    outcomes: int
    learners: int
    figures: dict[str, Interval]


def gathered(store_uri: str, service: str) -> Told:
    """Everything on the store; raises UsageError where nothing is."""
    folder = store.join(store_uri, FOLDER, service)
    names = sorted(name for name in store.sizes(folder) if name.endswith(".parquet"))
    if not names:
        raise UsageError(
            f"service {service!r} was told of no outcome yet; clients tell with POST v1/feedback"
        )
    parts = [pl.read_parquet(store.read_bytes(store.join(folder, name))) for name in names]
    every = pl.concat(parts).select(SCHEMA.names()).sort(ORDER)
    rows = every.unique(["id", "position"], keep="first", maintain_order=True)
    first = rows.select("id", "position", first="truth")
    told = every.join(first, on=["id", "position"], how="left")
    otherwise = int((told["truth"] != told["first"]).sum())
    return Told(rows, len(every) - len(rows) - otherwise, otherwise)


def fared(told: Told) -> list[Fared]:
    """Figures of each version, intervals by learner; the latest version first."""
    parts = told.rows.partition_by("version", maintain_order=True)
    return [_fared(part) for part in reversed(parts)]


def as_log(store_uri: str, service: str, told: Told) -> str:
    """URI of a log of what happened, for `lyceum run --data`; the same outcomes, the same file."""
    lines = told.rows["row"].drop_nulls()
    name = manifest.digest(told.rows.select("id", "position").rows())[:16]
    uri = store.join(store_uri, LOGS, service, f"{name}.jsonl")
    if not store.exists(uri):
        store.write_bytes(uri, "".join(f"{line}\n" for line in lines).encode())
    return uri


def _fared(rows: pl.DataFrame) -> Fared:
    kind = KINDS[rows["kind"][0]]
    target = rows["truth"].to_numpy()
    prediction = np.array([orjson.loads(text) for text in rows["prediction"]], np.float64)
    # Whom nobody named stands alone.
    whose = rows.select(pl.coalesce("learner", "id"))["learner"].to_numpy()
    scorers = {name: metric.prepare(target, prediction) for name, metric in kind.metrics.items()}
    one, groups = np.ones(len(target)), len(np.unique(whose))
    drawn = replicates(scorers, Draws.of(whose)) if groups >= ENOUGH else {}
    figures = {
        name: interval(score(one), drawn.get(name, np.array([]))) for name, score in scorers.items()
    }
    return Fared(rows["version"][0], len(rows), groups, figures)


def table(fared: Sequence[Fared]) -> list[dict[str, str]]:
    """A row for each version, as a person reads it."""
    return [
        {
            "version": one.version,
            "outcomes": str(one.outcomes),
            "learners": str(one.learners),
            **{name: _text(figure) for name, figure in one.figures.items()},
        }
        for one in fared
    ]


def _text(figure: Interval) -> str:
    if np.isnan(figure.low):
        return f"{figure.value:.4f}"
    return f"{figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"
