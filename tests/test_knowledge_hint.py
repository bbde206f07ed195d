"""The hint that a right answer is no setback: what is asked for, and what a fall costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ray_jobs.families.knowledge.batch import Asked, Batch, History, collate, examples
from ray_jobs.families.knowledge.counts import COLUMNS, ITEM_COLUMNS
from ray_jobs.families.knowledge.loss import Told, loss
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.networks import hint as hints
from ray_jobs.families.knowledge.networks.hint import once_more_right, probes
from ray_jobs.families.knowledge.vocabulary import UNSEEN
from tests.knowledge_parts import SMALL, VOCABULARY
from tests.test_knowledge_behaviour import made, school

pytestmark = pytest.mark.usefixtures("one_thread")

each_network = pytest.mark.parametrize("name", ["lstm", "attention"])
SCHOOL = school(seed=3)


@pytest.fixture
def every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each right answer is asked about, and not a few."""
    monkeypatch.setattr(hints, "DRAWN", 1)


@pytest.fixture
def batch() -> Batch:
    return collate(examples(SCHOOL, VOCABULARY), VOCABULARY)


def some_network(name: str, **more: Any) -> Any:
    """A network in training whose weights are arbitrary."""
    spec = SPECS[name](**{**SMALL[name], "dropout": 0.0, "blank": 0.0, **more})
    network = spec.prepare([SCHOOL], VOCABULARY)
    torch.manual_seed(0)
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return network.train()


def asked_of(history: History, skill: int, now: float) -> Asked:
    """A typical question about a skill."""
    one = np.array([1])
    return Asked(history, items=UNSEEN * one, skills=skill * one, skill_counts=one, now=now)


def until(history: History, step: int) -> History:
    """The first answers of a history."""
    tags = int(history.skill_counts[:step].sum())
    cut = {name: getattr(history, name)[:step] for name in ("items", "correct", "scored", "times")}
    return replace(
        history, **cut, skill_counts=history.skill_counts[:step], skills=history.skills[:tags]
    )


def around(step: int, history: History) -> list[Asked]:
    """The skill of an answer, asked for just before it and just after it."""
    skill, now = int(history.skills[history.skill_counts[:step].sum()]), float(history.times[step])
    return [asked_of(until(history, end), skill, now) for end in (step, step + 1)]


@given(st.integers(0, 10**6), st.integers(0, 11))
@settings(max_examples=60, deadline=None)
def test_counts_after_a_right_answer_are_what_a_client_would_be_asked_with(
    seed: int, step: int
) -> None:
    (history,) = examples(school(seed, learners=1), VOCABULARY)
    skill_counts = history.skill_counts.copy()
    if skill_counts[step] != 1:
        return
    correct = history.correct.copy()
    correct[step] = 1.0
    given = collate(around(step, replace(history, correct=correct)), VOCABULARY).questions
    assert given is not None
    before, after = given.counts[:2, 0].clone()
    torch.testing.assert_close(once_more_right(before[None])[0], after, atol=1e-5, rtol=1e-5)
    assert not torch.equal(before, after)


@pytest.mark.usefixtures("every_one")
def test_right_answers_to_one_skill_are_asked_about_and_no_others(batch: Batch) -> None:
    drawn = probes(batch)
    half = len(drawn.rows) // 2
    found = set(zip(drawn.rows[:half].tolist(), drawn.steps[:half].tolist(), strict=True))
    width = batch.items.shape[1]
    expected = {
        (row, step)
        for row, history in enumerate(examples(SCHOOL, VOCABULARY))
        for step in range(min(len(history.items), width - 1))
        if history.skill_counts[step] == 1 and history.correct[step] == 1
    }
    assert found == expected
    assert float(drawn.eligible) == len(expected) == half
    torch.testing.assert_close(drawn.rows[half:], drawn.rows[:half])
    torch.testing.assert_close(drawn.steps[half:], drawn.steps[:half] + 1)
    assert (drawn.questions.items == UNSEEN).all()
    assert not drawn.questions.counts[..., ITEM_COLUMNS].any()
    assert drawn.questions.counts[..., COLUMNS.index("skill_wins")].any()


def test_another_step_asks_about_others(batch: Batch) -> None:
    few = []
    for seed in range(2):
        torch.manual_seed(seed)
        few.append(probes(batch))
    assert len(few[0].rows) == len(few[1].rows) == 2 * -(-batch.items.numel() // hints.DRAWN)
    assert float(few[0].eligible) > len(few[0].rows)
    assert not torch.equal(few[0].steps, few[1].steps)


@each_network
@pytest.mark.usefixtures("every_one")
def test_a_fall_costs_what_mastery_falls_by_in_logits(name: str, batch: Batch) -> None:
    network = some_network(name, hint=3.0)
    told = network(batch)
    falls = 0.0
    network.eval()
    for history in examples(SCHOOL, VOCABULARY):
        for step in range(batch.items.shape[1] - 1):
            if history.skill_counts[step] == 1 and history.correct[step] == 1:
                levels = network.requires_grad_(False)(collate(around(step, history), VOCABULARY))
                falls += float((levels[0, 0] - levels[1, 0]).clamp(min=0.0))
    assert falls > 1.0, "something to be found"
    assert float(told.penalty.detach()) == pytest.approx(3.0 * falls, rel=1e-4)


@each_network
def test_a_few_stand_for_all(name: str, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    network = some_network(name)

    def price(drawn: int, seed: int) -> float:
        monkeypatch.setattr(hints, "DRAWN", drawn)
        torch.manual_seed(seed)
        return float(network(batch).penalty.detach())

    few = [price(16, seed) for seed in range(200)]
    error = np.std(few) / np.sqrt(len(few))
    assert np.mean(few) == pytest.approx(price(1, 0), abs=4 * error)


@each_network
@pytest.mark.usefixtures("every_one")
def test_nothing_is_dropped_of_what_is_asked(name: str, batch: Batch) -> None:
    """Else two readings of one state would differ, and a network would learn to say little."""
    network = some_network(name, dropout=0.9, **({"layers": 1} if name == "attention" else {}))
    network.question.dropout.dropped = 0  # so that no answer is dropped either
    prices = []
    for seed in range(2):
        torch.manual_seed(seed)
        prices.append(float(network(batch).penalty.detach()))
    assert prices[0] == pytest.approx(prices[1], rel=1e-4)


@each_network
def test_where_nobody_was_right_nothing_is_asked(name: str, batch: Batch) -> None:
    told = some_network(name)(replace(batch, correct=torch.zeros_like(batch.correct)))
    assert float(told.penalty.detach()) == 0.0
    torch.autograd.backward(loss(told, batch))


def test_the_price_comes_on_top_of_the_loss(batch: Batch) -> None:
    logits: Tensor = torch.linspace(-1, 1, batch.scored.numel()).view(batch.scored.shape)
    plain = loss(logits, batch)
    torch.testing.assert_close(loss(Told(logits, torch.tensor(2.5)), batch), plain + 2.5)


@pytest.mark.parametrize("name", ["lstm", "attention", "blend"])
def test_who_serves_says_nothing_of_it(name: str, batch: Batch) -> None:
    assert isinstance(made(name, SCHOOL).module(batch), Tensor)
