"""What may and what may not move a prediction: every architecture, seen from outside.

Names, the order of a set and the calendar may not; the order of answers and a pause must.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from ray_jobs.artifact import Artifact
from ray_jobs.families.knowledge.counts import COLUMNS
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.predictor import predict
from tests.knowledge_parts import ITEMS, KNOWLEDGE, SKILLS, SMALL, VOCABULARY, arbitrary, asked

pytestmark = pytest.mark.usefixtures("one_thread")

each_spec = pytest.mark.parametrize("name", sorted(SPECS))
each_network = pytest.mark.parametrize("name", sorted(set(SPECS) - {"rasch"}))
DAY_S = 86_400.0


def school(seed: int = 0, learners: int = 30, length: int = 12) -> pl.DataFrame:
    """A clean table in which anything is possible."""
    random = np.random.default_rng(seed)
    count = learners * length
    sets = [sorted(random.permutation(SKILLS)[: random.integers(3)].tolist()) for _ in range(count)]
    rows = {
        "learner": np.repeat([f"l{n}" for n in range(learners)], length),
        "item": random.choice(ITEMS, count),
        "skills": sets,
        "correct": random.integers(0, 2, count).astype(np.float32),
        "time": np.tile(np.arange(length) * DAY_S, learners),
        "scored": [True] * count,
    }
    return pl.DataFrame(rows, schema_overrides={"skills": pl.List(pl.String)})


def made(name: str, train: pl.DataFrame) -> Artifact:
    """A model as training begins with it, or fitted."""
    spec, vocabulary = SPECS[name](**SMALL[name]), KNOWLEDGE.vocabulary([train])
    torch.manual_seed(0)
    module = (
        spec.fit(train, train, vocabulary)
        if hasattr(spec, "fit")
        else spec.prepare([train], vocabulary)
    )
    return Artifact(KNOWLEDGE, spec, vocabulary, module.eval(), {}, digest="")


def chances(model: Artifact, table: pl.DataFrame) -> list[float]:
    found = predict(model, KNOWLEDGE.examples(table, model.vocabulary))
    return [float(chance) for outcome in found for chance in outcome]


HISTORY: list[dict[str, Any]] = [
    {"item": "i1", "skills": ["add", "sub"], "correct": 1, "time": 1 * DAY_S},
    {"item": "i2", "skills": ["sub", "mul", "new"], "correct": 0, "time": 1.1 * DAY_S},
    {"item": "i3", "skills": ["add", "mul"], "correct": 1, "time": 3 * DAY_S},
    {"item": "odd", "skills": [], "correct": 0, "time": 3.2 * DAY_S},
]
CANDIDATES = [{"item": "i1", "skills": ["mul", "add"]}, {"item": "odd", "skills": ["sub", "add"]}]


def said(name: str, history: list[dict[str, Any]], **more: Any) -> list[float]:
    return asked(arbitrary(name), history=history, **{"candidates": CANDIDATES, **more})


@each_spec
def test_renaming_learners_items_and_skills_changes_no_prediction(name: str) -> None:
    # Items and learners change their place in the alphabet; skills keep theirs, for in
    # a clean table it is the order of a set, and so that of first sight.
    items = {item: f"{9 - n} of a book" for n, item in enumerate(ITEMS)}

    def renamed(table: pl.DataFrame) -> pl.DataFrame:
        return table.with_columns(
            pl.col("item").replace_strict(items),
            pl.col("skills").list.eval(pl.format("skill {}", pl.element())),
            learner=pl.format("{} of 5b", pl.col("learner").str.reverse()),
        )

    train, test = school(), school(seed=1, learners=5)
    assert chances(made(name, renamed(train)), renamed(test)) == chances(made(name, train), test)


@each_spec
def test_the_order_of_skills_within_a_set_never_matters(name: str) -> None:
    turned = [{**a, "skills": [*a["skills"][::-1], *a["skills"][:1]]} for a in HISTORY]
    candidates = [{**c, "skills": [*c["skills"][::-1], *c["skills"]]} for c in CANDIDATES]
    assert said(name, turned, candidates=candidates) == said(name, HISTORY)
    table = school(seed=2, learners=5)
    reverse = table.with_columns(pl.col("skills").list.reverse())
    assert chances(arbitrary(name), reverse) == chances(arbitrary(name), table)


@each_spec
def test_the_order_of_answers_matters_and_so_does_each_of_their_parts(name: str) -> None:
    first, second, third, fourth = HISTORY
    usual = said(name, [first, second, third])
    times = [a["time"] for a in HISTORY]
    turned = [{**a, "time": t} for a, t in zip((third, second, first), times, strict=False)]
    for other in (
        turned,
        [first, second],
        [first, second, third, fourth],
        [{**first, "correct": 0.5}, second, third],
        [{**first, "skills": ["add"]}, second, third],
        [first, second, {**third, "item": "i1"}],
    ):
        assert np.abs(np.subtract(said(name, other), usual)).max() > 1e-4


@each_spec
def test_what_is_asked_beside_it_moves_no_prediction(name: str) -> None:
    alone = [said(name, HISTORY, candidates=[c])[0] for c in CANDIDATES]
    np.testing.assert_allclose(
        said(name, HISTORY, candidates=CANDIDATES[::-1]), alone[::-1], atol=1e-6
    )


@each_spec
def test_only_what_passed_between_answers_counts_and_not_the_date(name: str) -> None:
    moved = [{**a, "time": a["time"] + 20_000 * DAY_S} for a in HISTORY]
    there, here = said(name, moved, time=20_004 * DAY_S), said(name, HISTORY, time=4 * DAY_S)
    np.testing.assert_allclose(there, here, atol=1e-5)


@each_network
def test_a_pause_before_the_question_is_noticed(name: str) -> None:
    soon, late = (said(name, HISTORY, time=days * DAY_S) for days in (3.2, 300.0))
    assert np.abs(np.subtract(soon, late)).min() > 1e-3


def test_a_quarter_of_the_credit_counts_for_a_quarter() -> None:
    row = {"learner": "l", "item": "i1", "skills": ["add"], "time": 0.0, "scored": True}
    table = pl.DataFrame([{**row, "correct": credit} for credit in (0.25, 0.0)])
    batch = KNOWLEDGE.collate(KNOWLEDGE.examples(table, VOCABULARY), VOCABULARY)
    for of in ("skill", "item", "all"):
        wins, fails, last = (
            batch.counts[0, 1, COLUMNS.index(f"{of}_{name}")] for name in ("wins", "fails", "last")
        )
        expected = [math.log1p(0.25), math.log1p(0.75), -0.5]
        assert [float(value) for value in (wins, fails, last)] == pytest.approx(expected)


def test_a_history_in_the_ids_of_another_vocabulary_is_our_own_fault() -> None:
    histories = KNOWLEDGE.examples(school(), VOCABULARY)
    assert KNOWLEDGE.collate(histories, VOCABULARY)
    smaller = Vocabulary(ITEMS[:-1], SKILLS)
    with pytest.raises(AssertionError, match="ids of another vocabulary"):
        KNOWLEDGE.collate(histories, smaller)
