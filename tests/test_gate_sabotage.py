"""What is wrong with a candidate stops it, for the true reason: real models, really spoilt."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ray_jobs.artifact import Artifact, fetched
from ray_jobs.cluster import Cluster
from ray_jobs.data.tables import read_parquet
from ray_jobs.evaluation import Evaluation, compare, compare_slices, evaluate
from ray_jobs.families import recipe
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import World
from ray_jobs.recipe import Recipe
from ray_jobs.settings import Settings
from ray_jobs.target import Array
from tasks.evaluate import predictions, scored_rows
from tasks.gate import Check, figure_checks, replica_checks
from tasks.run import Run
from tests.serving_parts import serving
from tests.stages_parts import Told, in_process, tell, write_key

WORLD = World(seed=3, learners=300, items=30, skills=3, answers=16, answers_spread=0.3)
LABELS = {"knowledge": "correct", "tabular": "label"}  # columns of the logs below
# A broken part of the rows, as a report names it.
PARTS = {"knowledge": ("skill", "addition"), "tabular": ("region", "south")}


def cases(folder: Path) -> None:
    """Cases whose end depends on two numbers and a region."""
    drawn = random.Random(5)
    folder.mkdir(parents=True)
    with (folder / "cases.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["hours", "earlier", "region", "label"])
        for _ in range(2000):
            hours, earlier = drawn.gauss(5, 2), drawn.gauss(60, 10)
            region = drawn.choice(["north", "south", "west"])
            good = (hours - 5) / 2 + (earlier - 60) / 10 + (region == "west") + drawn.gauss(0, 1)
            label = "pass" if good > 0 else "fail"
            rows.writerow([f"{hours:.3f}", f"{earlier:.2f}", region, label])


def answers(folder: Path) -> None:
    simulate(WORLD, folder)


LOGS: dict[str, Callable[[Path], None]] = {"knowledge": answers, "tabular": cases}
each = pytest.mark.parametrize("kind", LOGS)


@dataclass(frozen=True)
class Honest:
    """A good model, and its test rows."""

    told: Told
    model: Artifact
    test: pl.DataFrame
    prediction: Array

    def judged(self, prediction: Array) -> Evaluation:
        """What an evaluation finds of predictions of the test rows."""
        rows = scored_rows(self.model, self.test)
        parts = [name for name in rows.columns if name not in {"group", "target"}]
        target = self.model.family.target(self.model.vocabulary)
        return evaluate(rows, prediction, target, slices=parts)

    def checks(self, prediction: Array) -> list[Check]:
        """What the gate says of predictions, where this model is the champion."""
        of, champion = self.judged(prediction), self.judged(self.prediction)
        report = replace(
            self.told.report,
            candidate=of,
            others={"champion": champion},
            differences={"champion": compare(of, champion)},
            slice_differences={"champion": compare_slices(of, champion)},
        )
        return figure_checks(self.told.run, report)


def planned(kind: str, folder: Path, **settings: str) -> Run:
    plan: Recipe = replace(recipe(f"{kind}-smoke"), data=str(folder / "logs"))
    where = Settings(home=folder / "home", key_file=folder / "key")
    return Run(plan.overridden(**settings), where)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Honest]]:
    """A good model of each family, made when it is first asked for."""
    made: dict[str, Honest] = {}

    def of(kind: str) -> Honest:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            LOGS[kind](folder / "logs")
            write_key(folder / "key", bytes(32))
            told = tell(planned(kind, folder))
            model, test = (
                fetched(told.model.artifact),
                read_parquet(told.splits.table("test")),
            )
            made[kind] = Honest(told, model, test, predictions(model, test))
        return made[kind]

    with in_process():
        yield of


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.reason for check in checks if not check.passed}


@each
def test_a_good_model_passes(kind: str, honest: Callable[[str], Honest]) -> None:
    good = honest(kind)
    assert failed(figure_checks(good.told.run, good.told.report)) == {}
    assert failed(good.checks(good.prediction)) == {}


@each
def test_shuffled_labels_stop(kind: str, honest: Callable[[str], Honest], tmp_path: Path) -> None:
    LOGS[kind](tmp_path / "logs")
    write_key(tmp_path / "key", bytes(32))
    for path in (tmp_path / "logs").glob("*.csv"):
        table = pl.read_csv(path, infer_schema=False, truncate_ragged_lines=True)
        table.with_columns(pl.col(LABELS[kind]).shuffle(seed=1)).write_csv(path)
    honest(kind)  # the stages run in this process from here on
    told = tell(planned(kind, tmp_path))
    reasons = failed(figure_checks(told.run, told.report))
    assert "must lie above chance, 0.5" in reasons["chance"]


@each
def test_a_broken_slice_stops_and_is_named(kind: str, honest: Callable[[str], Honest]) -> None:
    good, (column, value) = honest(kind), PARTS[kind]
    part = scored_rows(good.model, good.test)[column]
    broken = (part.list.contains(value) if part.dtype == pl.List else part == value).to_numpy()
    assert 0.05 < broken.mean() < 0.7
    prediction = np.where(broken, 1 - good.prediction, good.prediction)
    reasons = failed(good.checks(prediction))
    assert f"{column} = {value}: " in reasons["slices"]
    assert "against the champion" in reasons["slices"]


@each
def test_probabilities_that_are_too_sure_stop_although_their_order_is_right(
    kind: str, honest: Callable[[str], Honest]
) -> None:
    good = honest(kind)
    odds = np.log(good.prediction / (1 - good.prediction))
    reasons = failed(good.checks(1 / (1 + np.exp(-4 * odds))))
    assert "calibration" in reasons
    assert "chance" not in reasons
    assert reasons["calibration"].startswith("calibration error 0.")


@each
def test_a_model_that_is_too_large_stops(kind: str, honest: Callable[[str], Honest]) -> None:
    told = honest(kind).told
    run = replace(told.run, recipe=told.run.recipe.overridden(**{"gate.max_size_mb": "0.0001"}))
    assert list(failed(figure_checks(run, told.report))) == ["size"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with serving(tmp_path_factory.mktemp("serving")) as (_, cluster):
        yield cluster


@pytest.mark.ray
@pytest.mark.slow
@each
def test_a_model_that_is_too_slow_or_does_not_load_stops(
    kind: str, honest: Callable[[str], Honest], cluster: Cluster
) -> None:
    told = honest(kind).told
    run = replace(told.run, recipe=told.run.recipe.overridden(**{"gate.max_latency_ms": "0.01"}))
    reasons = failed(replica_checks(run, told.release, cluster))
    assert list(reasons) == ["latency"]
    assert reasons["latency"].endswith("ms in a real replica; at most 0.01")
    for path in Path(told.model.artifact).iterdir():
        if path.suffix in {".safetensors", ".txt"}:
            path.write_bytes(path.read_bytes()[:-1])
    (broken,) = replica_checks(told.run, told.release, cluster)
    assert (broken.name, broken.passed) == ("replica", False)
    assert "digest" in broken.reason
