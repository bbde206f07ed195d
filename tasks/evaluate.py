"""Evaluate: candidate, baseline and champion on the same test rows, with intervals and slices."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from prefect import task

from ray_jobs import artifact, manifest, store
from ray_jobs.artifact import Artifact
from ray_jobs.data.snapshot import read_parquet
from ray_jobs.data.split import SplitTable
from ray_jobs.evaluation import (
    Evaluation,
    compare,
    evaluate,
    intervals_from,
    plain_intervals,
)
from ray_jobs.families import Family
from ray_jobs.intervals import Interval
from ray_jobs.predictor import predict
from ray_jobs.serving.release import Release, golden_outcomes
from tasks.run import Run
from tasks.train import Model

log = logging.getLogger(__name__)

Figures = dict[str, Interval]  # by metric


@dataclass(frozen=True)
class Report:
    """What the evaluation found; other models are named "baseline" and "champion"."""

    candidate: Evaluation
    others: dict[str, Evaluation]
    differences: dict[str, Figures]  # candidate minus other, paired on the same rows
    golden: list[dict[str, Any]]
    best_possible: Figures | None  # of a filter that knows the world, where there is one
    size_mb: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate.as_dict(),
            "others": {name: e.as_dict() for name, e in self.others.items()},
            "differences": {n: plain_intervals(d) for n, d in self.differences.items()},
            "golden": self.golden,
            "best_possible": plain_intervals(self.best_possible) if self.best_possible else None,
            "size_mb": self.size_mb,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        others = {name: Evaluation.from_dict(e) for name, e in values["others"].items()}
        differences = {n: intervals_from(d) for n, d in values["differences"].items()}
        best = values["best_possible"]
        typed = {
            "candidate": Evaluation.from_dict(values["candidate"]),
            "others": others,
            "differences": differences,
            "best_possible": intervals_from(best) if best else None,
        }
        return cls(**{**values, **typed})


@task(name="evaluate")
def evaluated(
    run: Run, splits: SplitTable, model: Model, champion: Release | None, truth: str = ""
) -> tuple[Report, bool]:
    """Judge a model on the test split; `truth` is a folder of the family's sample, if it is one."""
    inputs = {
        "model": model.digest,
        "champion": champion.digest if champion else None,
        "splits": splits.uri.rsplit("/", 1)[-1],
        "truth": truth,
        "code": run.code("evaluation.py", "metrics.py", "intervals.py", "predictor.py"),
    }

    def work(uri: str) -> dict[str, Any]:
        del uri
        return _judge(run, splits, model, champion, truth).as_dict()

    result, cached = manifest.once(run.store, "evaluate", inputs, work)
    return Report.from_dict(result), cached


def _judge(
    run: Run, splits: SplitTable, model: Model, champion: Release | None, truth: str
) -> Report:
    test = read_parquet(splits.table("test"))
    candidate = read_artifact(model.artifact)
    rows = scored_rows(run.family, candidate, test)
    columns = {"prediction": predictions(candidate, test)}
    columns["baseline"] = predictions(_baseline(run, splits), test)
    if champion:
        columns["champion"] = predictions(read_artifact(champion.artifact), test)
    if truth and run.family.ceiling:
        scored = test["scored"].to_numpy()
        columns["best_possible"] = run.family.ceiling(Path(truth), test)[scored]
    rows = rows.with_columns(pl.Series(name, values) for name, values in columns.items())
    parts = run.family.slices(test, candidate.vocabulary).columns
    judged = {
        n: evaluate(rows, prediction=n, slices=parts if n != "best_possible" else ())
        for n in columns
    }
    mine = judged.pop("prediction")
    best = judged.pop("best_possible", None)
    report = Report(
        candidate=mine,
        others=judged,
        differences={name: compare(mine, other) for name, other in judged.items()},
        golden=golden_outcomes(candidate, run.family.api.golden(test)),
        best_possible=best.metrics if best else None,
        size_mb=size_mb(model.artifact),
    )
    headline = mine.metrics[run.family.headline]
    log.info("evaluate: %s %.4f on %d rows", run.family.headline, headline.value, mine.rows)
    return report


def scored_rows(kind: Family, model: Artifact, test: pl.DataFrame) -> pl.DataFrame:
    """Group, target and slices of the rows that are evaluated, in the order of the table."""
    facts = test.select(pl.col(kind.group).alias("group"), pl.col(kind.target).alias("target"))
    parts = kind.slices(test, model.vocabulary)
    return pl.concat([facts, parts], how="horizontal").filter(test["scored"])


def predictions(model: Artifact, table: pl.DataFrame) -> NDArray[np.float32]:
    """A model's prediction of each scored row, in the order of the table."""
    examples = model.family.examples(table, model.vocabulary)
    return np.concatenate(predict(model, examples))


def read_artifact(uri: str) -> Artifact:
    """Load an artifact from the store."""
    with tempfile.TemporaryDirectory(prefix="lyceum-artifact-") as folder:
        return artifact.read(store.fetch(uri, Path(folder)))


def size_mb(uri: str) -> float:
    """Size of an artifact on the store."""
    with tempfile.TemporaryDirectory(prefix="lyceum-artifact-") as folder:
        path = store.fetch(uri, Path(folder))
        return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6


def _baseline(run: Run, splits: SplitTable) -> Artifact:
    """The family's baseline, fitted to the same train split and kept."""
    spec = run.family.baseline()
    inputs = {"splits": splits.uri.rsplit("/", 1)[-1], "spec": spec.name, "code": run.code()}

    def work(uri: str) -> dict[str, Any]:
        train, validation = (read_parquet(splits.table(n)) for n in ("train", "validation"))
        vocabulary = run.family.vocabulary(train)
        module = spec.fit(train, validation, vocabulary)
        with tempfile.TemporaryDirectory(prefix="lyceum-artifact-") as folder:
            artifact.write(
                Path(folder),
                kind=run.family.name,
                spec=spec,
                vocabulary=vocabulary,
                module=module,
                about={"role": "baseline"},
            )
            store.put_folder(Path(folder), store.join(uri, "artifact"))
        return {"artifact": store.join(uri, "artifact")}

    result, _ = manifest.once(run.store, "baseline", inputs, work)
    return read_artifact(result["artifact"])
