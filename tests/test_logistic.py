"""What the logistic regression promises: a sum to follow by hand, of the likeliest terms."""

from __future__ import annotations

import logging
import math
from collections import defaultdict

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.artifact import Artifact
from ray_jobs.families import family
from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.families.knowledge.counts import COLUMNS
from ray_jobs.families.knowledge.networks import logistic
from ray_jobs.families.knowledge.networks.logistic import Logistic, LogisticModule
from ray_jobs.families.knowledge.vocabulary import UNSEEN
from ray_jobs.predictor import predict
from tests.test_rasch import (
    HARDNESS,
    HELD_OUT,
    ITEMS,
    SKILLS,
    TRAIN,
    VOCABULARY,
    Step,
    answers,
    of_one_learner,
    one_skill,
    step,
)

pytestmark = pytest.mark.usefixtures("one_thread")

KNOWLEDGE = family("knowledge")
PRIOR = 30.0


def fitted(
    train: pl.DataFrame = TRAIN, held_out: pl.DataFrame = HELD_OUT, prior: float = PRIOR
) -> LogisticModule:
    module = Logistic(prior=prior).fit(train, held_out, VOCABULARY)
    assert isinstance(module, LogisticModule)
    assert not module.training
    return module


@pytest.fixture(scope="module")
def module() -> LogisticModule:
    return fitted()


def model(module: LogisticModule) -> Artifact:
    return Artifact(KNOWLEDGE, Logistic(), VOCABULARY, module, {}, digest="")


def term(module: LogisticModule, name: str, *, item: str = "", skill: str = "") -> float:
    """One term by its name, as a reader of the model would look it up."""
    at = [n for n, known in enumerate(module.names()) if known == name]
    row = VOCABULARY.item(item) if item else VOCABULARY.skill_ids.get(skill, UNSEEN)
    return float(module.terms[at[row] if item or name in logistic.OF_SKILL else at[0]])


# What is predicted.


@settings(max_examples=30, deadline=None)
@given(st.lists(step, min_size=1, max_size=15), st.integers(0, 5))
def test_a_logit_is_the_sum_of_the_terms_that_speak_of_it(steps: list[Step], seed: int) -> None:
    module = LogisticModule(VOCABULARY)
    torch.nn.init.normal_(module.terms, generator=torch.Generator().manual_seed(seed))
    histories = KNOWLEDGE.examples(of_one_learner(steps), VOCABULARY)
    counts = KNOWLEDGE.collate(histories, VOCABULARY).counts[0].double().numpy()
    (told,) = predict(model(module), histories)
    for (item, skills, _), chance, count in zip(steps, told, counts, strict=True):
        named = dict(zip(COLUMNS, count, strict=True))
        # Right after an answer to the same the gap is one step, which is none.
        for about in ("skill", "item"):
            named[f"{about}_gap"] = max(named[f"{about}_gap"] - math.log(2), 0.0)
        logit = term(module, "usual") + term(module, "item_ease", item=item)
        logit += sum(term(module, name) * value for name, value in named.items())
        names = sorted({s if s in SKILLS else "unseen" for s in skills}) or ["unseen"]
        for name in names:
            own = term(module, "ease", skill=name)
            own += term(module, "wins", skill=name) * named["skill_wins"]
            own += term(module, "fails", skill=name) * named["skill_fails"]
            logit += own / len(names)
        assert chance == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(one_skill, max_size=12), st.sampled_from(SKILLS), st.integers(0, 20))
def test_one_more_right_answer_never_lowers_the_mastery_of_its_skill(
    steps: list[Step], skill: str, seed: int
) -> None:
    # Whatever is fitted: the most unlucky terms that its bounds allow.
    module = LogisticModule(VOCABULARY)
    drawn = np.random.default_rng(seed).normal(size=len(module.terms)) * 2
    bounds = logistic._Prior.of(module, item=1.0, skill=PRIOR).bounds
    module.terms.copy_(torch.from_numpy(np.clip(drawn, *bounds.T)))
    past = [{"item": i, "skills": s, "correct": c} for i, s, c in steps]
    levels = []
    for history in (past, [*past, {"item": "i1", "skills": [skill], "correct": 1.0}]):
        body = {"history": history, "skills": [skill]}
        request = VERBS["mastery"].request.model_validate(body)
        level, *_ = predict(model(module), VERBS["mastery"].examples(request, VOCABULARY))
        levels.append(float(level[0]))
    assert levels[1] >= levels[0] - 1e-6


# What is fitted.


def test_no_small_change_of_any_term_is_likelier(module: LogisticModule) -> None:
    rows = logistic._rows(TRAIN, VOCABULARY, module)
    prior = logistic._Prior.of(module, item=1.0, skill=PRIOR)
    terms = logistic._fitted(rows, prior)
    _, slope = logistic._loss(rows, terms)
    slope = slope + prior.trust * terms
    at_lowest, at_highest = (np.isclose(terms, bound) for bound in prior.bounds.T)
    assert (at_lowest | at_highest).any(), "some sign is bound"
    free = ~at_lowest & ~at_highest
    assert np.abs(slope[free]).max() < 1.0, "of 4,500 answers"
    assert slope[at_lowest].min() > -1.0
    assert slope[at_highest].max() < 1.0


def test_a_slope_is_what_the_loss_does(module: LogisticModule) -> None:
    rows = logistic._rows(HELD_OUT, VOCABULARY, module)
    terms = np.random.default_rng(0).normal(size=len(module.terms))
    loss, slope = logistic._loss(rows, terms)
    logits = rows.told @ terms
    chances = 1 / (1 + np.exp(-logits))
    by_hand = -np.log(np.where(rows.correct, chances, 1 - chances)).sum()
    assert loss == pytest.approx(by_hand)
    for at in np.flatnonzero(slope)[::3]:
        step = np.zeros_like(terms)
        step[at] = 1e-5
        change = logistic._loss(rows, terms + step)[0] - logistic._loss(rows, terms - step)[0]
        assert slope[at] == pytest.approx(change / 2e-5, rel=1e-3, abs=1e-3)


def test_planted_difficulties_are_found(module: LogisticModule) -> None:
    known = ITEMS[:-1]
    easy = [
        term(module, "item_ease", item=name) + term(module, "ease", skill=SKILLS[n % len(SKILLS)])
        for n, name in enumerate(known)
    ]
    assert np.corrcoef(easy, -HARDNESS[:-1])[0, 1] > 0.97


def test_the_trust_in_items_is_the_best_on_validation(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    few = TRAIN.filter(pl.col("learner").is_in([f"l{n}" for n in range(15)]))
    module = fitted(few)
    told = [float(record.getMessage().split()[-1]) for record in caplog.records]
    assert len(told) == len(logistic.ITEM_PRIORS)
    rows = logistic._rows(HELD_OUT, VOCABULARY, module)
    loss, _ = logistic._loss(rows, module.terms.double().numpy())
    assert loss / len(rows.correct) == pytest.approx(min(told), abs=1e-4)


def test_a_skill_that_nobody_practised_is_like_the_others_by_how_much_they_were() -> None:
    named = TRAIN.filter(pl.col("skills").list.len() > 0)
    module = fitted(named)
    practised: dict[str, float] = defaultdict(float)
    for skills in named["skills"]:
        for skill in skills:
            practised[skill] += 1 / len(skills)
    mean = sum(term(module, "ease", skill=s) * n for s, n in practised.items())
    unseen = term(module, "ease", skill="unheard of")
    assert unseen == pytest.approx(mean / sum(practised.values()), abs=1e-4)


def test_what_names_no_skill_is_fitted_where_there_is_such_a_thing(module: LogisticModule) -> None:
    bare = TRAIN.filter(pl.col("skills").list.len() == 0)
    assert len(bare)
    (chances,) = [np.concatenate(predict(model(module), KNOWLEDGE.examples(bare, VOCABULARY)))]
    assert chances.mean() == pytest.approx(bare["correct"].mean(), abs=0.1)


def test_the_less_a_skill_is_trusted_to_differ_the_less_it_does() -> None:
    spreads = []
    for prior in (0.1, 30.0, 1e6):
        module = fitted(prior=prior)
        spreads.append(np.ptp([term(module, "wins", skill=skill) for skill in SKILLS]))
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 1e-3


def test_answers_that_are_not_scored_teach_nothing_of_items() -> None:
    context = answers(20, 10, 7).with_columns(
        learner=pl.format("context {}", "learner"), scored=pl.lit(value=False)
    )
    both, alone = fitted(pl.concat([TRAIN, context])), fitted()
    torch.testing.assert_close(both.terms, alone.terms, atol=0.02, rtol=0)


def test_a_fit_is_the_same_whenever_it_is_made(module: LogisticModule) -> None:
    assert torch.equal(fitted().terms, module.terms)


def test_an_item_never_met_is_as_its_skills_are(module: LogisticModule) -> None:
    (told,) = predict(
        model(module), KNOWLEDGE.examples(of_one_learner([("strange", ("x",), 0.0)]), VOCABULARY)
    )
    logit = term(module, "usual") + term(module, "ease", skill="x")
    assert told[0] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
