"""What the baseline promises: ratings that can be followed by hand, difficulties that fit."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.artifact import Artifact
from ray_jobs.families import family
from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.families.knowledge.networks.rasch import FATIGUE, STEPS, Rasch, RaschModule
from ray_jobs.families.knowledge.vocabulary import UNSEEN, Vocabulary
from ray_jobs.predictor import predict

KNOWLEDGE = family("knowledge")
ITEMS, SKILLS = tuple(f"i{n}" for n in range(8)), ("x", "y", "z")
HARDNESS = np.linspace(-1.5, 1.5, len(ITEMS))  # logits


def answers(learners: int, length: int, seed: int, *, spread: float = 0.7) -> pl.DataFrame:
    """Learners whose abilities have a standard deviation of `spread`; item n asks skill n % 3.

    The last item is rare, and now and then a question names no skill or two.
    """
    random = np.random.default_rng(seed)
    share = np.array([1.0] * (len(ITEMS) - 1) + [0.05])
    item = random.choice(len(ITEMS), (learners, length), p=share / share.sum())
    ability = random.normal(0.0, spread, (learners, 1))
    correct = random.random(item.shape) < 1 / (1 + np.exp(HARDNESS[item] - ability))
    sets = [[SKILLS[i % 3]] if n % 7 else [[], ["x", "z"]][n % 2] for n, i in enumerate(item.flat)]
    return pl.DataFrame(
        {
            "learner": np.repeat([f"l{n}" for n in range(learners)], length),
            "item": [ITEMS[i] for i in item.flat],
            "skills": sets,
            "correct": correct.ravel().astype(np.float32),
            "time": None,
            "scored": True,
        },
        schema_overrides={"skills": pl.List(pl.String), "time": pl.Float64},
    )


TRAIN, HELD_OUT = answers(150, 30, 0), answers(40, 30, 1)
VOCABULARY = Vocabulary.of([TRAIN])


def fitted(train: pl.DataFrame, held_out: pl.DataFrame, **how: Any) -> RaschModule:
    module = Rasch(**how).fit(train, held_out, VOCABULARY)
    assert isinstance(module, RaschModule)
    assert not module.training
    return module


@pytest.fixture(scope="module")
def module() -> RaschModule:
    return fitted(TRAIN, HELD_OUT)


def model(module: RaschModule) -> Artifact:
    return Artifact(KNOWLEDGE, Rasch(), VOCABULARY, module, {}, digest="")


def loss_of(module: RaschModule, table: pl.DataFrame) -> float:
    """Cross-entropy per scored answer, by way of what is predicted."""
    chances = np.concatenate(predict(model(module), KNOWLEDGE.examples(table, VOCABULARY)))
    right = table.filter("scored")["correct"].to_numpy()
    return float(-np.log(np.where(right, chances, 1 - chances)).mean())


def asked(module: RaschModule, verb: str, **body: Any) -> list[float]:
    """What a client is told: the probabilities or levels of one request."""
    request = VERBS[verb].request.model_validate(body)
    outcomes = predict(model(module), VERBS[verb].examples(request, VOCABULARY))
    return [float(outcome[0]) for outcome in outcomes]


# Ratings.

Step = tuple[str, tuple[str, ...], float]  # item, skills, correct


def slow_elo(module: RaschModule, steps: Sequence[Step]) -> list[float]:
    """The chance of each answer, by updating one rating after the other in plain numbers."""
    ratings: dict[str, float] = defaultdict(float)
    met: dict[str, int] = defaultdict(int)
    overall, told = 0.0, []
    for t, (item, skills, correct) in enumerate(steps):
        names = sorted({s if s in SKILLS else "unseen" for s in skills}) or ["unseen"]
        hard = [float(module.skill_difficulty[VOCABULARY.skill_ids.get(s, UNSEEN)]) for s in names]
        difficulty = sum(hard) / len(hard)
        if item in ITEMS:
            difficulty = float(module.item_difficulty[VOCABULARY.item(item)])
        known = overall + sum(ratings[s] for s in names) / len(names)
        told.append(1 / (1 + math.exp(difficulty - known)))
        surprise = float(module.step) * (correct - told[-1])
        overall += surprise / (1 + FATIGUE * t)
        for s in names:
            ratings[s] += surprise / (1 + FATIGUE * met[s])
            met[s] += 1
    return told


step = st.tuples(
    st.sampled_from([*ITEMS, "strange"]),
    st.lists(st.sampled_from([*SKILLS, "odd", "new"]), max_size=3).map(tuple),
    st.sampled_from([0.0, 0.25, 1.0]),
)


def of_one_learner(steps: Sequence[Step]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "learner": "ann",
            "item": [item for item, _, _ in steps],
            "skills": [sorted(set(skills)) for _, skills, _ in steps],
            "correct": [correct for _, _, correct in steps],
            "time": None,
            "scored": True,
        },
        schema_overrides={"skills": pl.List(pl.String)},
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(step, min_size=1, max_size=25))
def test_predictions_equal_ratings_kept_by_hand(module: RaschModule, steps: list[Step]) -> None:
    (told,) = predict(model(module), KNOWLEDGE.examples(of_one_learner(steps), VOCABULARY))
    np.testing.assert_allclose(told, slow_elo(module, steps), atol=1e-5)


one_skill = st.tuples(
    st.sampled_from(ITEMS), st.sampled_from(SKILLS).map(lambda s: (s,)), st.booleans().map(float)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(one_skill, min_size=1, max_size=20), st.data())
def test_a_better_answer_never_lowers_the_mastery_of_its_skill_and_half_of_it_lies_between(
    module: RaschModule, steps: list[Step], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(steps) - 1))
    skill = steps[at][1][0]
    levels = []
    for credit in (0.0, 0.5, 1.0):
        changed = [*steps[:at], (*steps[at][:2], credit), *steps[at + 1 :]]
        history = [{"item": i, "skills": s, "correct": c} for i, s, c in changed]
        levels.append(asked(module, "mastery", history=history, skills=[skill])[0])
    assert levels == sorted(levels)
    assert at < len(steps) - 1 or levels[0] < levels[1] < levels[2]


def test_an_answer_tells_less_the_more_there_were_before_it(module: RaschModule) -> None:
    gaps = []
    for earlier in (0, 2, 8, 32):
        past = [{"item": "i3", "skills": ["x"], "correct": n % 2} for n in range(earlier)]
        last = ({"item": "i3", "skills": ["x"], "correct": credit} for credit in (0, 1))
        low, high = (asked(module, "mastery", history=[*past, a])[0] for a in last)
        gaps.append(math.log(high / (1 - high)) - math.log(low / (1 - low)))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 2 * gaps[-1]


# Difficulties.


def test_the_step_is_the_best_on_validation_and_the_difficulties_are_those_of_that_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = []
    for spread in (0.2, 3.0):
        train, held_out = (answers(60, 30, seed, spread=spread) for seed in (2, 3))
        caplog.clear()
        with caplog.at_level(logging.INFO):
            module = fitted(train, held_out)
        figures = [float(r.getMessage().rsplit(" ", 1)[1]) for r in caplog.records]
        assert len(figures) == len(STEPS)
        assert loss_of(module, held_out) == pytest.approx(min(figures), abs=1e-4)
        chosen.append(float(module.step))
    assert chosen[0] < chosen[1], "where learners differ more, an answer tells more"


def test_planted_difficulties_are_recovered(module: RaschModule) -> None:
    found = [float(module.item_difficulty[VOCABULARY.item(name)]) for name in ITEMS[:-1]]
    assert np.argsort(found).tolist() == list(range(len(found)))
    np.testing.assert_allclose(np.ptp(found), np.ptp(HARDNESS[:-1]), rtol=0.25)


def test_at_the_fit_every_item_is_solved_as_often_as_expected_but_for_the_prior() -> None:
    prior = 2.0
    module = fitted(TRAIN, HELD_OUT, prior=prior, rounds=25)
    chances = np.concatenate(predict(model(module), KNOWLEDGE.examples(TRAIN, VOCABULARY)))
    difficulty = {n: float(module.item_difficulty[VOCABULARY.item(n)]) for n in ITEMS}
    of_skill = {n: float(module.skill_difficulty[i]) for n, i in VOCABULARY.skill_ids.items()}
    unnamed = float(module.skill_difficulty[UNSEEN])
    rows = TRAIN.with_columns(
        surplus=pl.Series(chances) - pl.col("correct"),
        hope=pl.Series([np.mean([of_skill[s] for s in k] or [unnamed]) for k in TRAIN["skills"]]),
    )
    sums = rows.group_by("item").agg(pl.col("surplus").sum(), pl.col("hope").mean())
    for item, surplus, hope in sums.iter_rows():
        assert surplus == pytest.approx(prior * (difficulty[item] - hope), abs=0.05)


def test_a_skill_is_as_hard_as_its_questions_and_no_skill_as_hard_as_all() -> None:
    prior = 3.0
    module = fitted(TRAIN, HELD_OUT, prior=prior)
    asked_of = defaultdict(list)
    for item, names in TRAIN.select("item", "skills").iter_rows():
        for name in names:
            asked_of[name].append(float(module.item_difficulty[VOCABULARY.item(item)]))
    everything = np.mean([d for of in asked_of.values() for d in of])
    for name, of in asked_of.items():
        expected = (sum(of) + prior * everything) / (len(of) + prior)
        found = float(module.skill_difficulty[VOCABULARY.skill_ids[name]])
        assert found == pytest.approx(expected, abs=1e-4)
    (unheard,) = asked(module, "predict", candidates=[{"item": "strange"}])
    assert unheard == pytest.approx(1 / (1 + math.exp(everything)), abs=1e-4)


def test_a_rare_item_stays_near_its_skill_and_nearer_the_more_that_is_trusted() -> None:
    # Of the last item of skill "y" there is the truth that it is the hardest of all.
    gaps = []
    for prior in (0.1, 1.0, 10.0, 1000.0):
        module = fitted(TRAIN, HELD_OUT, prior=prior)
        item, skill = VOCABULARY.item(ITEMS[-1]), VOCABULARY.skill_ids["y"]
        gaps.append(float(module.item_difficulty[item] - module.skill_difficulty[skill]))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.5
    assert abs(gaps[-1]) < 0.1


def test_neither_names_nor_the_order_of_learners_move_a_fit(module: RaschModule) -> None:
    names = {name: f"{9 - n}-{name}" for n, name in enumerate((*ITEMS, *SKILLS))}

    def turned(table: pl.DataFrame) -> pl.DataFrame:
        return pl.concat(table.partition_by("learner", maintain_order=True)[::-1]).with_columns(
            pl.col("item").replace_strict(names),
            pl.col("skills").list.eval(pl.element().replace_strict(names)).list.sort(),
            learner=pl.format("somebody {}", "learner"),
        )

    vocabulary = Vocabulary.of([turned(TRAIN)])
    other = Rasch().fit(turned(TRAIN), turned(HELD_OUT), vocabulary)
    assert isinstance(other, RaschModule)
    for found, again, ids, others in (
        (module.item_difficulty, other.item_difficulty, VOCABULARY.item_ids, vocabulary.item_ids),
        (
            module.skill_difficulty,
            other.skill_difficulty,
            VOCABULARY.skill_ids,
            vocabulary.skill_ids,
        ),
    ):
        there = [others[names[name]] for name in ids]
        torch.testing.assert_close(found[list(ids.values())], again[there], atol=1e-4, rtol=0)
