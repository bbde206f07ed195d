"""Evaluate: candidate, baseline and champion on the same test rows, with intervals and slices."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from prefect import task

from ray_jobs import artifact, code, manifest, store
from ray_jobs.artifact import Artifact, fetched
from ray_jobs.data.split import SplitTable
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import ContractError, StoreError
from ray_jobs.evaluation import (
    Evaluation,
    compare,
    compare_slices,
    evaluate,
    intervals_from,
    plain_intervals,
)
from ray_jobs.families import Family
from ray_jobs.intervals import Interval
from ray_jobs.predictor import predict
from ray_jobs.recipe import as_dict
from ray_jobs.serving.release import Release, golden_outcomes
from ray_jobs.target import Array, Target
from tasks.run import Run
from tasks.train import Model, fault

log = logging.getLogger(__name__)

IMPORTANCE_ROWS = 2000
COLD = "cold_start"  # the same recipe trained from nothing, beside one that began from a champion

Figures = dict[str, Interval]  # by metric


@dataclass(frozen=True)
class Report:
    """What the evaluation found; other models are the "baseline", the "champion" and COLD."""

    candidate: Evaluation
    others: dict[str, Evaluation]
    differences: dict[str, Figures]  # candidate minus other, paired on the same rows
    golden: list[dict[str, Any]]
    best_possible: Figures | None  # of a filter that knows the world, where there is one
    size_mb: float
    # The same of each slice's first figure: other -> column -> value.
    slice_differences: dict[str, dict[str, Figures]] = field(default_factory=dict)
    # What the headline loses when a feature's values change rows.
    importance: Figures = field(default_factory=dict)
    unread_champion: str = ""  # why nothing was compared with it

    def as_dict(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate.as_dict(),
            "others": {name: e.as_dict() for name, e in self.others.items()},
            "differences": {n: plain_intervals(d) for n, d in self.differences.items()},
            "slice_differences": {
                name: {column: plain_intervals(parts) for column, parts in slices.items()}
                for name, slices in self.slice_differences.items()
            },
            "importance": plain_intervals(self.importance),
            "golden": self.golden,
            "best_possible": plain_intervals(self.best_possible) if self.best_possible else None,
            "size_mb": self.size_mb,
            "unread_champion": self.unread_champion,
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
            "slice_differences": {
                name: {column: intervals_from(parts) for column, parts in slices.items()}
                for name, slices in values["slice_differences"].items()
            },
            "importance": intervals_from(values["importance"]),
            "best_possible": intervals_from(best) if best else None,
        }
        return cls(**{**values, **typed})


@task(name="evaluate")
def evaluated(
    run: Run,
    splits: SplitTable,
    model: Model,
    champion: Release | None,
    truth: str = "",
    cold: Model | None = None,
) -> tuple[Report, bool]:
    """Judge a model on the test split, beside a champion and one that was trained from nothing.

    `truth` is a folder of the family's sample, if it is one.
    """
    inputs = {
        "model": model.digest,
        "champion": champion.digest if champion else None,
        "cold": cold.digest if cold else None,
        "splits": splits.content,
        "truth": truth,
        "code": judging(run),
    }

    def work(uri: str) -> dict[str, Any]:
        del uri
        return _judge(run, splits, model, champion, truth, cold).as_dict()

    result, cached = manifest.once(run.store, "evaluate", inputs, work)
    return Report.from_dict(result), cached


def judging(run: Run) -> str:
    """Digest of the code that judges models of a family."""
    kind = run.family
    asked = [piece for piece in (kind.ceiling, kind.shuffled) if piece is not None]
    return code.digest(
        "ray_jobs.evaluation", "ray_jobs.predictor", kind.slices, kind.target, kind.targets,
        kind.examples, kind.outcomes, kind.api.golden, type(kind.baseline()), *asked,
    )  # fmt: skip


def _judge(
    run: Run,
    splits: SplitTable,
    model: Model,
    champion: Release | None,
    truth: str,
    cold: Model | None,
) -> Report:
    test = read_parquet(splits.table("test"))
    candidate = fetched(model.artifact)
    target, rows = run.family.target(candidate.vocabulary), scored_rows(candidate, test)
    parts = [name for name in rows.columns if name not in {"group", "target"}]
    mine = evaluate(rows, predictions(candidate, test), target, slices=parts)
    others = {"baseline": fitted_baseline(run, splits)}
    unread = ""
    if champion:
        try:
            others["champion"] = fetched(champion.artifact)
        except StoreError as error:
            # It could never be replaced, were it needed for that.
            unread = f"version {champion.version}: {error}"
            log.warning("evaluate: the champion cannot be read, %s", unread)
    if cold:
        others[COLD] = fetched(cold.artifact)
    them = {
        name: evaluate(rows, aligned(other, test, target), target, slices=parts)
        for name, other in others.items()
    }
    report = Report(
        candidate=mine,
        others=them,
        differences={name: compare(mine, other) for name, other in them.items()},
        slice_differences={name: compare_slices(mine, other) for name, other in them.items()},
        importance=importance(candidate, test, mine),
        golden=golden_outcomes(candidate, run.family.api.golden(test, candidate.vocabulary)),
        best_possible=_best_possible(run.family, truth, test, evaluated_as=(rows, target)),
        size_mb=size_mb(model.artifact),
        unread_champion=unread,
    )
    name, barred = mine.of_kind.headline, run.protocol.barred
    aside = f"; {barred}" if barred else ""
    log.info("evaluate: %s %.4f on %d rows%s", name, mine.headline.value, mine.rows, aside)
    return report


def _best_possible(
    kind: Family, truth: str, test: pl.DataFrame, evaluated_as: tuple[pl.DataFrame, Target]
) -> Figures | None:
    if not truth or kind.ceiling is None:
        return None
    rows, target = evaluated_as
    scored = test["scored"].to_numpy()
    return evaluate(rows, kind.ceiling(Path(truth), test)[scored], target).metrics


def importance(model: Artifact, test: pl.DataFrame, mine: Evaluation) -> Figures:
    """What the headline loses when a feature's values change rows, the most missed first.

    On at most IMPORTANCE_ROWS rows, where a family has features to shuffle.
    """
    if model.family.shuffled is None:
        return {}
    table = test.filter("scored")
    table = table.sample(min(len(table), IMPORTANCE_ROWS), seed=0)
    rows = scored_rows(model, table).select("group", "target")
    target, name = model.family.target(model.vocabulary), mine.of_kind.headline

    def judged(part: pl.DataFrame) -> Evaluation:
        return evaluate(rows, predictions(model, part), target, metrics=(name,))

    whole = judged(table)
    lost = {
        feature: compare(whole, judged(part))[name]
        for feature, part in model.family.shuffled(table, model.vocabulary)
    }
    return dict(sorted(lost.items(), key=lambda item: -item[1].value))


def scored_rows(model: Artifact, test: pl.DataFrame) -> pl.DataFrame:
    """Group, target and slices of the rows that are evaluated, in the order of the table."""
    kind = model.family
    group = test.select(pl.col(kind.group).alias("group"))
    truth = pl.DataFrame({"target": kind.targets(test, model.vocabulary)})
    parts = kind.slices(test, model.vocabulary)
    return pl.concat([group, truth, parts], how="horizontal").filter(test["scored"])


def predictions(model: Artifact, table: pl.DataFrame) -> Array:
    """A model's predictions of the scored rows, (N,) or (N, C), in the order of the table."""
    examples = model.family.examples(table, model.vocabulary)
    return np.concatenate(predict(model, examples)).astype(np.float64)


def aligned(model: Artifact, table: pl.DataFrame, target: Target) -> Array:
    """Predictions of a model that may have been trained on other outcomes, told as the target is.

    Raises ContractError where one predicts numbers and the other does not.
    """
    theirs, found = model.family.target(model.vocabulary), predictions(model, table)
    if theirs == target:
        return found
    if "number" in {theirs.kind, target.kind}:
        raise ContractError(
            f"the champion predicts a {theirs.kind}, the candidate a {target.kind}: another label "
            "is another service; name one with --service"
        )
    shares = np.stack([1 - found, found], axis=1) if theirs.kind == "binary" else found
    none = np.zeros(len(found))
    columns = dict(zip(theirs.outcomes, shares.T, strict=True))
    told = np.stack([columns.get(name, none) for name in target.outcomes], axis=1)
    return told[:, 1] if target.kind == "binary" else told


def size_mb(uri: str) -> float:
    """Size of an artifact on the store."""
    with tempfile.TemporaryDirectory(prefix="lyceum-artifact-") as folder:
        path = store.fetch(uri, Path(folder))
        return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6


def fitted_baseline(run: Run, splits: SplitTable) -> Artifact:
    """The family's baseline, fitted to the same train split and kept."""
    spec = run.family.baseline()
    inputs = {
        "splits": splits.content,
        "spec": as_dict(spec),
        "code": code.digest(type(spec), *run.learning),
    }

    def work(uri: str) -> dict[str, Any]:
        train, validation = (read_parquet(splits.table(n)) for n in ("train", "validation"))
        vocabulary = run.family.vocabulary([train])
        torch.manual_seed(0)
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

    result, _ = manifest.once(run.store, "baseline", inputs, work, fault=fault)
    return fetched(result["artifact"])
