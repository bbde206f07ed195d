"""Cross-validate: every row predicted by a model that never saw its group, fold by fold.

On request (`split.folds`), beside the test split: for few rows its figures are
far surer, and they tell whether one split was lucky.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from prefect import task

from ray_jobs import manifest, store
from ray_jobs.artifact import fetched
from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable, folded
from ray_jobs.data.tables import read_parquet, write_part
from ray_jobs.errors import ContractError
from ray_jobs.evaluation import compare, evaluate, intervals_from, plain_intervals
from ray_jobs.privacy import salted
from ray_jobs.target import Array, Target
from tasks.evaluate import Figures, aligned, fitted_baseline, judging
from tasks.run import Run
from tasks.train import trained

log = logging.getLogger(__name__)

FIGURES = ("metrics", "baseline", "difference")


@dataclass(frozen=True)
class Crossing:
    """Figures over the rows of all folds, and of each fold by itself."""

    folds: int
    rows: int
    metrics: Figures
    baseline: Figures
    difference: Figures  # candidate minus baseline, paired on the same rows
    by_fold: dict[str, list[float | None]]  # metric -> its figure in each fold

    def as_dict(self) -> dict[str, Any]:
        figures = {name: plain_intervals(getattr(self, name)) for name in FIGURES}
        return {"folds": self.folds, "rows": self.rows, **figures, "by_fold": self.by_fold}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Crossing:
        figures = {name: intervals_from(values[name]) for name in FIGURES}
        return cls(**{**values, **figures})


@dataclass(frozen=True)
class Fold:
    """Predictions of the rows that one fold's models never saw, with their truth."""

    rows: pl.DataFrame  # group, target
    candidate: Array
    baseline: Array


@task(name="cross-validate")
def cross_validate(
    run: Run, table: CleanTable, lineage: str, cluster: Callable[[], Cluster]
) -> tuple[Crossing, bool]:
    """Train and judge a model per fold; a run that was killed goes on with the fold it was at."""
    inputs = {"lineage": lineage, "folds": run.recipe.split.folds, "code": judging(run)}

    def work(uri: str) -> dict[str, Any]:
        return _crossed(run, table, lineage, cluster, uri).as_dict()

    result, cached = manifest.once(run.store, "cross-validate", inputs, work)
    return Crossing.from_dict(result), cached


def _crossed(
    run: Run, table: CleanTable, lineage: str, cluster: Callable[[], Cluster], uri: str
) -> Crossing:
    rows = read_parquet(table.table)
    count = run.recipe.split.folds
    number = folded(rows, count, salt=run.recipe.service)
    target = run.family.target(run.family.vocabulary([rows]))
    folds = []
    for fold in range(count):
        splits = _divided(run, rows, number == fold, store.join(uri, f"fold-{fold}"))
        own = manifest.digest([lineage, count, fold])[:32]
        folds.append(_judged(run, splits, own, cluster, target))
        log.info("cross-validate: fold %d of %d, %d rows", fold + 1, count, len(folds[-1].rows))
    return _together(folds, target)


def _divided(run: Run, rows: pl.DataFrame, held: pl.Series, uri: str) -> SplitTable:
    """One fold as test split, the others as train and validation."""
    share = run.recipe.split.validation
    place = salted(rows["bucket"], f"{run.recipe.service} validation")
    label = pl.when(held).then(pl.lit("test")).when(place < share).then(pl.lit("validation"))
    split = rows.select(label.otherwise(pl.lit("train")).alias("split"))["split"]
    parts = {name: rows.filter(split == name) for name in ("train", "validation", "test")}
    written = [write_part(store.join(uri, name), 0, part) for name, part in parts.items()]
    counts = {name: len(part) for name, part in parts.items()}
    if not all(part["scored"].any() for part in parts.values()):
        raise ContractError(
            f"of {rows[run.family.group].n_unique()} groups ({run.family.group}) none is left to "
            f"{'test' if counts['test'] == 0 else 'train'} on in one of {run.recipe.split.folds} "
            "folds; give more data, or fewer with --set split.folds"
        )
    groups = {name: part[run.family.group].n_unique() for name, part in parts.items()}
    scored = {name: int(part["scored"].sum()) for name, part in parts.items()}
    content = manifest.digest(written)
    return SplitTable(uri, False, counts, scored, groups, cut=None, held_back=0, content=content)


def _judged(
    run: Run, splits: SplitTable, lineage: str, cluster: Callable[[], Cluster], target: Target
) -> Fold:
    test = read_parquet(splits.table("test"))
    model = fetched(trained(run, splits, lineage, cluster, lambda _: None)[0].artifact)
    truth = run.family.targets(test, model.vocabulary)
    rows = test.select(pl.col(run.family.group).alias("group"))
    rows = rows.with_columns(pl.Series("target", truth)).filter(test["scored"])
    return Fold(
        rows=rows,
        candidate=aligned(model, test, target),
        baseline=aligned(fitted_baseline(run, splits), test, target),
    )


def _together(folds: list[Fold], target: Target) -> Crossing:
    rows = pl.concat([fold.rows for fold in folds])
    mine = evaluate(rows, np.concatenate([fold.candidate for fold in folds]), target)
    other = evaluate(rows, np.concatenate([fold.baseline for fold in folds]), target)
    truths = [fold.rows["target"].to_numpy() for fold in folds]
    by_fold = {
        name: [_plain(metric(t, f.candidate)) for t, f in zip(truths, folds, strict=True)]
        for name, metric in mine.of_kind.metrics.items()
    }
    return Crossing(
        folds=len(folds),
        rows=len(rows),
        metrics=mine.metrics,
        baseline=other.metrics,
        difference=compare(mine, other),
        by_fold=by_fold,
    )


def _plain(figure: float) -> float | None:
    return None if np.isnan(figure) else round(figure, 6)
