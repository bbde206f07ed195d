"""Other people's logs, as they are: a learner, an item, and whether it was right.

No skills, no times, few learners, very many items, very long histories, partial
credit: each goes through the stages of a run, and a service of it answers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows.request import resolve
from ray_jobs.artifact import Artifact
from ray_jobs.data.tables import read_parquet
from ray_jobs.evaluation import evaluate
from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.predictor import predict
from ray_jobs.recipe import Budget
from ray_jobs.serving.answering import MAX_COST
from ray_jobs.settings import Settings
from tasks.prepare import clean, ingest, split
from tasks.run import Run
from tests.stages_parts import write_key
from tests.taught_parts import KNOWLEDGE, learnt

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = {"width": 16, "neighbours": 8}
STEPS = 40  # of an epoch, however long the log
QUICK = {"histories of 5,000": ("lstm",), "100,000 items": ("rasch", "lstm")}


@dataclass(frozen=True)
class Log:
    """How many answer how often to how many items, and whether there is credit between 0 and 1."""

    learners: int
    answers: int  # of each
    items: int
    partial: bool = False


LOGS = {
    "fifty learners": Log(50, 40, 30),
    "partial credit": Log(120, 30, 30, partial=True),
    "histories of 5,000": Log(20, 5_000, 200),
    "100,000 items": Log(1_500, 80, 100_000),
}
# What takes long to learn is left to `make test-all`.
CASES = [
    pytest.param(log, name, marks=[] if name in QUICK.get(log, SPECS) else pytest.mark.slow)
    for log in LOGS
    for name in SPECS
]
cases = pytest.mark.parametrize(("log", "name"), CASES)


def written(log: Log) -> str:
    """Answers by ability and difficulty, in the columns that any log has."""
    random = np.random.default_rng(0)
    learner = np.repeat(np.arange(log.learners), log.answers)
    item = random.integers(log.items, size=len(learner))
    item[: log.items] = random.permutation(log.items)[: len(item)]
    ability, difficulty = random.normal(size=log.learners), random.normal(size=log.items)
    chance = 1 / (1 + np.exp(difficulty[item] - ability[learner]))
    correct: Any = (random.random(len(item)) < chance).astype(int)
    if log.partial:
        correct = np.round(4 * np.clip(chance + random.normal(0, 0.2, len(item)), 0, 1)) / 4
    named = {"learner": [f"l{n}" for n in learner], "item": [f"q{n}" for n in item]}
    return pl.DataFrame({**named, "correct": correct}).write_csv()


@cache
def tables(log: str) -> dict[str, pl.DataFrame]:
    """The splits of a log, made by the stages of a run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "log.csv").write_text(written(LOGS[log]))
        asked = resolve("knowledge", None, str(folder / "log.csv"), {}, None, None)
        write_key(folder / "key", bytes(32))
        run = Run(asked, Settings(home=folder / "home", key_file=folder / "key"))
        splits = split.fn(run, clean.fn(run, ingest.fn(run)[0])[0])[0]
        return {part: read_parquet(splits.table(part)) for part in ("train", "validation", "test")}


@cache
def taught(log: str, name: str) -> Artifact:
    settings = {} if name in {"rasch", "logistic"} else NARROW
    parts = tables(log)
    size = max(64, len(parts["train"]) // STEPS)
    budget = Budget(epochs=3, batch_cost=size, learning_rate=1e-2)
    return learnt(SPECS[name](**settings), parts["train"], parts["validation"], budget)


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """Nobody else needs networks of 100,000 items."""
    yield
    taught.cache_clear()
    tables.cache_clear()


@cases
def test_any_log_is_learnt_from_and_its_test_answers_are_predicted(log: str, name: str) -> None:
    parts, kind = tables(log), LOGS[log]
    assert sum(map(len, parts.values())) == kind.learners * kind.answers, "every row was kept"
    model, test = taught(log, name), parts["test"]
    told = predict(model, KNOWLEDGE.examples(test, model.vocabulary))
    chances = np.concatenate(told).astype(np.float64)
    assert ((chances > 0) & (chances < 1)).all()
    rows = test.select(group="learner", target=pl.col("correct").cast(pl.Float64))
    metrics = ("auc", "log_loss")
    found = evaluate(rows, chances, KNOWLEDGE.target(None), metrics=metrics).metrics
    print(log, name, {key: round(found[key].value, 4) for key in metrics})
    assert found["auc"].value > 0.6
    assert found["log_loss"].value < 0.69, "better than a coin"


@cases
def test_a_service_of_any_log_answers(log: str, name: str) -> None:
    model, test = taught(log, name), tables(log)["test"]
    first = test.filter(pl.col("learner") == test["learner"][0])
    history = first.select("item", "correct").to_dicts()
    candidates = [{"item": item} for item in model.vocabulary.items[:20]]

    chances = said(model, "predict", history=history, candidates=candidates)["predictions"]
    assert len({one["probability"] for one in chances}) > 10, "items differ"
    assert all(0 < one["probability"] < 1 for one in chances)

    assert said(model, "mastery", history=history)["mastery"] == [], "there are no skills"
    (asked,) = said(model, "mastery", history=history, skills=["algebra"])["mastery"]
    assert 0 < asked["level"] < 1
    assert (asked["trend"], asked["answers"], asked["last"]) == (None, 0, None)

    best = said(model, "next", history=history, candidates=candidates)["recommendations"]
    known = {one["item"]: one["probability"] for one in chances}
    assert len({one["item"] for one in best}) == 5
    for one in best:
        assert one["probability"] == pytest.approx(known[one["item"]], abs=1e-5)
        assert len(one["reasons"]) == 1, "of the zone alone: no skill has a name"


def said(model: Artifact, verb: str, **body: Any) -> dict[str, Any]:
    """What a service answers, which would refuse what costs too much."""
    one = VERBS[verb]
    request = one.request.model_validate(body)
    assert one.cost(request) <= MAX_COST
    outcomes = predict(model, one.examples(request, model.vocabulary))
    told = one.answer(request, outcomes, model.vocabulary)
    one.response.model_validate(told)
    return told
