"""What the Bayes filter promises: the best that can be said from strictly earlier answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge.bayes import filtered, mastery
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import DAY_S, Truth, World, chance, faded, practised

FEW = 200  # particles, where only who may influence what is at stake


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return simulate(World(learners=600, seed=3), tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def test_split(truth: Truth) -> pl.DataFrame:
    return truth.table().filter(pl.col("learner").is_in(truth.learners[:200]))


@pytest.fixture(scope="module")
def predictions(truth: Truth, test_split: pl.DataFrame) -> NDArray[np.float64]:
    return filtered(truth, test_split)


def item_means(truth: Truth, test_split: pl.DataFrame) -> NDArray[np.float64]:
    """How often other learners solve the item: the best that ignores history."""
    others = truth.table().filter(~pl.col("learner").is_in(truth.learners[:200]))
    rate = others.group_by("item").agg(pl.col("correct").mean().alias("rate"))
    joined = test_split.join(rate, on="item", how="left", maintain_order="left")
    return joined["rate"].fill_null(0.5).cast(pl.Float64).to_numpy()


def test_the_filter_lies_between_the_truth_and_the_item_means(
    truth: Truth, test_split: pl.DataFrame, predictions: NDArray[np.float64]
) -> None:
    correct = test_split["correct"].to_numpy()
    names = truth.learners[:200]
    told = truth.answers.filter(pl.col("learner").is_in(names))["probability"].to_numpy()
    forecasts = (told, predictions, item_means(truth, test_split))
    best, bayes, static = (roc_auc_score(correct, f) for f in forecasts)
    assert best - 0.06 < bayes < best
    assert 0.75 < bayes < 0.82
    assert bayes > static + 0.08
    assert log_loss(correct, told) < log_loss(correct, predictions)


def test_what_the_filter_says_comes_about_as_often(
    test_split: pl.DataFrame, predictions: NDArray[np.float64]
) -> None:
    correct = test_split["correct"].to_numpy()
    tenth = np.digitize(predictions, np.quantile(predictions, np.linspace(0.1, 0.9, 9)))
    for k in range(10):
        of = tenth == k
        assert correct[of].mean() == pytest.approx(predictions[of].mean(), abs=0.04)


def short_history(truth: Truth, answers: list[tuple[int, float, float]]) -> pl.DataFrame:
    """A table of one learner's answers: number of the item, outcome, days since the start."""
    numbers, outcomes, days = zip(*answers, strict=True)
    rows = pl.DataFrame(
        {
            "learner": ["a pseudonym"] * len(answers),
            "item": [truth.items[i] for i in numbers],
            "skills": [truth.skills_of(i) for i in numbers],
            "correct": outcomes,
            "time": [truth.world.start + d * DAY_S for d in days],
        }
    )
    return rows.cast({"correct": pl.Float32, "time": pl.Float64})


def brute_force(truth: Truth, answers: list[tuple[int, float, float]]) -> list[float]:
    """The same by drawing learners from the population and weighing them, never resampling."""
    n, rng, world = 200_000, np.random.default_rng(17), truth.world
    skills = len(truth.skills)
    ability = rng.normal(world.general_mean, world.general_sd, (n, 1)) + rng.normal(
        0.0, world.skill_sd, (n, skills)
    )
    pace = world.pace * np.exp(rng.normal(0.0, world.pace_sd, n))
    gain, seen, weight = np.zeros((n, skills)), np.zeros(skills), np.ones(n)
    told = []
    for item, correct, day in answers:
        uses = np.flatnonzero(truth.item_skills[item])
        for s in uses:
            gain[:, s] = faded(gain[:, s], np.array((day - seen[s]) * DAY_S), world)
        known = (ability + gain)[:, uses].mean(axis=1)
        p = chance(known, truth.difficulty[item], truth.discrimination[item])
        told.append(float((weight * p).sum() / weight.sum()))
        weight *= p if correct else 1.0 - p
        for s in uses:
            gain[:, s] = practised(gain[:, s], pace, rng.standard_normal(n), world)
            seen[s] = day
    return told


def test_the_filter_is_right_where_brute_force_can_tell(truth: Truth) -> None:
    two_skills = int(np.flatnonzero(truth.item_skills.sum(axis=1) == 2)[0])
    main = int(np.flatnonzero(truth.item_skills[two_skills])[0])
    same = [i for i in range(len(truth.items)) if truth.item_skills[i, main]][:4]
    days = (0.0, 0.01, 0.02, 1.0, 1.01, 30.0, 30.01, 30.02)
    outcomes = (1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0)
    items = (two_skills, *same, two_skills, 0, 1)
    answers = list(zip(items, outcomes, days, strict=True))
    told = filtered(truth, short_history(truth, answers), particles=20_000)
    assert told == pytest.approx(brute_force(truth, answers), abs=0.01)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(0, 49), item=st.integers(0, 199))
def test_an_answer_never_influences_its_own_or_an_earlier_prediction(
    truth: Truth, test_split: pl.DataFrame, at: int, item: int
) -> None:
    longest = test_split.group_by("learner").len().sort("len", "learner")["learner"][-1]
    rows = test_split.filter(pl.col("learner") == longest).head(50).with_row_index()
    here, after = pl.col("index") == at, pl.col("index") > at
    other = rows.with_columns(
        pl.when(here).then(1 - pl.col("correct")).otherwise("correct").alias("correct"),
        pl.when(after).then(pl.lit(truth.items[item])).otherwise("item").alias("item"),
    )
    told, told_other = (filtered(truth, table, particles=FEW) for table in (rows, other))
    assert np.array_equal(told[: at + 1], told_other[: at + 1])
    assert at == 49 or not np.array_equal(told[at + 1 :], told_other[at + 1 :])


def test_a_learner_is_judged_by_own_answers_alone(truth: Truth, test_split: pl.DataFrame) -> None:
    """So renaming, reordering and leaving out learners changes nothing."""
    together = filtered(truth, test_split, particles=FEW)
    names = test_split["learner"].unique(maintain_order=True)[-100:]
    renamed = [
        test_split.filter(pl.col("learner") == name).with_columns(pl.lit(f"p{i}").alias("learner"))
        for i, name in enumerate(reversed(names))
    ]
    apart = filtered(truth, pl.concat(renamed), particles=FEW)
    rows = test_split.with_row_index().filter(pl.col("learner").is_in(names))["index"]
    order = np.concatenate(
        [rows.filter(test_split["learner"].gather(rows) == name) for name in reversed(names)]
    )
    assert apart == pytest.approx(together[order], abs=1e-5)


def test_the_same_table_is_always_judged_alike(
    truth: Truth, test_split: pl.DataFrame, predictions: NDArray[np.float64], tmp_path: Path
) -> None:
    truth.save(tmp_path / "truth.json")
    again = filtered(Truth.load(tmp_path / "truth.json"), test_split)
    assert np.array_equal(again, predictions)


def test_mastery_rises_with_success_and_comes_near_the_truth(
    truth: Truth, test_split: pl.DataFrame
) -> None:
    item = int(np.flatnonzero(truth.item_skills.sum(axis=1) == 1)[0])
    skill = truth.skills_of(item)[0]
    for outcomes in ((0.0, 0.5), (0.5, 1.0)):
        low, high = (
            mastery(truth, short_history(truth, [(item, o, d / 100) for d in range(8)]))[skill][0]
            for o in outcomes
        )
        assert low < high - 0.2
    found = mastery(truth, test_split)
    assert found["learner"].to_list() == sorted(truth.learners[:200])
    per_learner = found.drop("learner").to_numpy().mean(axis=1)
    assert np.corrcoef(per_learner, truth.ability[:200].mean(axis=1))[0, 1] > 0.8


def test_forgetting_shows_in_what_is_expected_after_a_break(truth: Truth) -> None:
    item = int(np.flatnonzero(truth.item_skills.sum(axis=1) == 1)[0])
    practice = [(item, float(d % 2), d / 100) for d in range(12)]
    at_once, later = (
        filtered(truth, short_history(truth, [*practice, (item, 1.0, day)]))[-1]
        for day in (0.13, 60.0)
    )
    assert later < at_once - 0.03


def test_nothing_is_said_of_nobody(truth: Truth, test_split: pl.DataFrame) -> None:
    assert filtered(truth, test_split.head(0)).shape == (0,)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (pl.lit("essay-001").alias("item"), "essay-001.*not of this simulated world"),
        (pl.lit(None, pl.Float64).alias("time"), "without a time"),
        (pl.Series("learner", ["a", "b", "a"]), "sort the table by learner"),
    ],
)
def test_a_table_it_cannot_judge_is_refused(
    truth: Truth, test_split: pl.DataFrame, broken: pl.Expr | pl.Series, says: str
) -> None:
    with pytest.raises(ContractError, match=says):
        filtered(truth, test_split.head(3).with_columns(broken))
