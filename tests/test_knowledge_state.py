"""What is carried of a learner stands for the answers it was made of, in every spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ray_jobs.artifact import Artifact
from ray_jobs.families.knowledge.batch import (
    Asked,
    Carried,
    History,
    Kept,
    between,
    collate,
    counted,
    examples,
)
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.vocabulary import UNSEEN
from ray_jobs.predictor import predict
from tests.knowledge_parts import KNOWLEDGE, VOCABULARY, arbitrary
from tests.test_knowledge_behaviour import school

pytestmark = pytest.mark.usefixtures("one_thread")

each_spec = pytest.mark.parametrize("name", sorted(SPECS))


def kept(model: Artifact, history: History, carried: Carried | None = None) -> tuple[Carried, int]:
    """What a model would have carried, and of how many of these answers."""
    (told,) = predict(model, [Kept(history, carried)])
    many = int(told[0])
    return Carried(counted(between(history, 0, many), carried), told[1:]), many


def asked(history: History, carried: Carried | None = None, now: float = np.nan) -> Asked:
    """A question about each item, one of them new, and about a skill alone."""
    return Asked(
        history,
        items=np.array([2, 3, 4, UNSEEN, UNSEEN]),
        skills=np.array([2, 3, 4, 2, 3, 3]),
        skill_counts=np.array([1, 2, 0, 2, 1]),
        now=now,
        carried=carried,
    )


def long_history(seed: int, length: int = 40) -> History:
    (history,) = examples(school(seed, learners=1, length=length), VOCABULARY)
    return history


@given(st.integers(0, 10**6), st.lists(st.integers(0, 15), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_counts_go_on_from_what_was_counted(seed: int, lengths: list[int]) -> None:
    history, random = long_history(seed, sum(lengths) + 3), np.random.default_rng(seed)
    unknown = random.random(len(history.times)) < 0.2
    credit = np.where(random.random(len(unknown)) < 0.3, 0.3, history.correct).astype(np.float32)
    items = np.where(random.random(len(unknown)) < 0.2, UNSEEN, history.items)
    history = replace(
        history, times=np.where(unknown, np.nan, history.times), correct=credit, items=items
    )
    carried, begin = None, 0
    for length in lengths:
        tallies = counted(between(history, begin, begin + length), carried)
        carried, begin = Carried(tallies, np.empty(0, np.float32)), begin + length
    now = float(history.times[-1])
    rest = between(history, begin, len(history.items))
    whole, parts = (
        collate([one], VOCABULARY).questions
        for one in (asked(history, now=now), asked(rest, carried, now))
    )
    assert whole is not None
    assert parts is not None
    torch.testing.assert_close(parts.counts, whole.counts, atol=2e-6, rtol=1e-6)


@each_spec
def test_what_is_carried_stands_for_the_answers_it_was_made_of(name: str) -> None:
    """However often and wherever it was carried, to 1e-5."""
    model = arbitrary(name)
    for seed in range(12):
        random = np.random.default_rng(seed)
        history = long_history(seed, int(random.integers(2, 60)))
        carried: Carried | None = None
        since = between(history, 0, 0)
        ends = np.sort(random.integers(0, len(history.items) + 1, 3)).tolist()
        begin = 0
        for end in ends:
            since = joined(since, between(history, begin, end))
            carried, many = kept(model, since, carried)
            since, begin = between(since, many, len(since.items)), end
        rest = joined(since, between(history, begin, len(history.items)))
        whole, parts = predict(model, [asked(history), asked(rest, carried)])
        np.testing.assert_allclose(parts, whole, atol=1e-5, rtol=0)
        assert carried is not None
        assert carried.tallies.steps + len(rest.items) == len(history.items)


def joined(first: History, second: History) -> History:
    names = ("items", "skills", "skill_counts", "correct", "scored", "times")
    both = {name: np.concatenate([getattr(x, name) for x in (first, second)]) for name in names}
    return History(**both)


@each_spec
def test_learners_of_whom_something_is_carried_and_others_go_together(name: str) -> None:
    model = arbitrary(name)
    histories = [long_history(seed, 25 + seed) for seed in range(3)]
    carried, many = kept(model, histories[1])
    short = between(histories[1], many, len(histories[1].items))
    alone = [predict(model, [asked(history)])[0] for history in histories]
    together = predict(
        model, [asked(histories[0]), asked(short, carried), Kept(histories[2]), asked(histories[2])]
    )
    for one, other in zip(alone, [together[i] for i in (0, 1, 3)], strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5, rtol=0)


def test_what_must_be_told_again_has_an_end() -> None:
    """Of the small networks: attention sees four blocks of four answers at the very most."""
    history = long_history(0, 60)
    left = {name: len(history.items) - kept(arbitrary(name), history)[1] for name in sorted(SPECS)}
    assert left == {"rasch": 60, "logistic": 0, "lstm": 0, "attention": 12, "blend": 12}


@each_spec
def test_what_is_carried_matters(name: str) -> None:
    """Of learners who ended alike, with another beginning."""
    model, history = arbitrary(name), long_history(1, 60)
    other = replace(
        history, correct=np.where(np.arange(60) < 40, 1 - history.correct, history.correct)
    )
    told: list[NDArray[np.float32]] = []
    for one in (history, other):
        carried, many = kept(model, one)
        (chances,) = predict(model, [asked(between(one, many, 60), carried)])
        told.append(chances)
    assert np.abs(told[0] - told[1]).max() > 1e-3


def test_a_batch_of_several_kinds_is_our_own_fault() -> None:
    mixed: Any = [long_history(0), asked(long_history(0))]
    with pytest.raises(AssertionError, match="several kinds"):
        KNOWLEDGE.collate(mixed, VOCABULARY)
