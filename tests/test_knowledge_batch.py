"""Promises of the knowledge batch: causal counts, faithful padding, one example per learner."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.families.knowledge.batch import (
    Asked,
    Batch,
    History,
    collate,
    cost,
    examples,
    outcomes,
    rounded,
)
from ray_jobs.families.knowledge.counts import COLUMNS
from ray_jobs.families.knowledge.loss import loss, weight
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.families.knowledge.tallies import FAST, SLOW
from ray_jobs.families.knowledge.vocabulary import UNSEEN, Vocabulary

VOCABULARY = Vocabulary(items=tuple("abcdef"), skills=tuple("xyz"))
SKILL_IDS = range(1, len(VOCABULARY.skills) + 2)
ITEM_IDS = range(1, len(VOCABULARY.items) + 2)

Step = tuple[int, tuple[int, ...], float, bool, float]  # item, skills, correct, scored, time


def history_of(steps: list[Step]) -> History:
    items, skills, correct, scored, times = zip(*steps, strict=True)
    return History(
        items=np.array(items, np.int64),
        skills=np.array([s for group in skills for s in group], np.int64),
        skill_counts=np.array([len(group) for group in skills], np.int64),
        correct=np.array(correct, np.float32),
        scored=np.array(scored, np.bool_),
        times=np.array(times, np.float64),
    )


def steps(longest: int = 12) -> st.SearchStrategy[list[Step]]:
    one = st.tuples(
        st.sampled_from(ITEM_IDS),
        st.sets(st.sampled_from(SKILL_IDS)).map(lambda s: tuple(sorted(s))),
        st.sampled_from([0.0, 1.0, 0.5]),
        st.booleans(),
        st.one_of(st.just(math.nan), st.integers(0, 10**6).map(float)),
    )
    return st.lists(one, min_size=1, max_size=longest)


def slow_past(earlier: list[tuple[int, float, float]], now: int, time: float) -> list[float]:
    """PAST of one group in the plainest way: from a list of (step, correct, time)."""
    if not earlier:
        return [0.0] * 7
    results = [2 * correct - 1 for _, correct, _ in earlier]

    def decayed(keep: float) -> float:
        weights = [keep ** (len(results) - 1 - i) for i in range(len(results))]
        return sum(w * r for w, r in zip(weights, results, strict=True)) / (sum(weights) + 1)

    step, _, before = earlier[-1]
    hours = (time - before) / 3600
    return [
        math.log1p(sum(c for _, c, _ in earlier)),
        math.log1p(sum(1 - c for _, c, _ in earlier)),
        decayed(FAST),
        decayed(SLOW),
        results[-1],
        0.0 if math.isnan(hours) else math.log1p(max(hours, 0.0)),
        math.log1p(now - step),
    ]


def slow_counts(history: list[Step]) -> list[list[float]]:
    """The count features of every step, read off the answers before it one by one."""
    rows = []
    for t, (item, skills, _, _, time) in enumerate(history):
        before = [(i, *step) for i, step in enumerate(history[:t])]

        def met(chosen: Any, t: int = t, time: float = time, before: Any = before) -> list[float]:
            earlier = [(i, c, at) for i, it, sk, c, _, at in before if chosen(it, sk)]
            return slow_past(earlier, t, time)

        by_skill = [met(lambda _, sk, s=s: s in sk) for s in skills] or [[0.0] * 7]
        skill = [sum(column) / len(by_skill) for column in zip(*by_skill, strict=True)]
        by_item = met(lambda it, _, item=item: it == item and item != UNSEEN)
        overall = met(lambda _it, _sk: True)[:-1]
        distinct = {s for _, _, sk, *_ in before for s in sk}
        rows.append([*skill, *by_item, *overall, math.log1p(len(distinct))])
    return rows


@given(st.lists(steps(), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_counts_equal_a_slow_and_obvious_reading_of_earlier_answers(logs: list[list[Step]]) -> None:
    batch = collate([history_of(log) for log in logs], VOCABULARY)
    for row, log in enumerate(logs):
        expected = np.array(slow_counts(log))
        np.testing.assert_allclose(batch.counts[row, : len(log)], expected, atol=1e-5)


@given(st.lists(steps(), min_size=1, max_size=4), steps(longest=3))
@settings(deadline=None)
def test_what_is_asked_changes_no_count_of_what_was_answered(
    logs: list[list[Step]], asked: list[Step]
) -> None:
    histories, questions = [history_of(log) for log in logs], history_of(asked)
    with_questions = collate(
        [
            Asked(one, questions.items, questions.skills, questions.skill_counts, now=np.nan)
            for one in histories
        ],
        VOCABULARY,
    )
    assert torch.equal(with_questions.counts, collate(histories, VOCABULARY).counts)


def test_counts_hold_over_histories_longer_than_the_memory_of_a_decayed_mean() -> None:
    random = np.random.default_rng(0)
    log: list[Step] = [
        (int(random.integers(1, 8)), (2,), float(random.integers(2)), True, float(t))
        for t in range(400)
    ]
    counts = collate([history_of(log)], VOCABULARY).counts[0, : len(log)]
    np.testing.assert_allclose(counts, np.array(slow_counts(log)), atol=1e-5)


@given(st.lists(steps(longest=40), min_size=2, max_size=20))
@settings(max_examples=40, deadline=None)
def test_a_batch_holds_each_history_as_it_is_alone_and_zeros_beside_it(
    logs: list[list[Step]],
) -> None:
    histories = [history_of(log) for log in logs]
    together = collate(histories, VOCABULARY)
    for row, history in enumerate(histories):
        alone = collate([history], VOCABULARY)
        length = cost(history)
        deep = alone.skills.shape[2]
        assert torch.equal(together.skills[row, :length, :deep], alone.skills[0, :length])
        assert not together.skills[row, :, deep:].any()
        for name in ("items", "correct", "mask", "scored"):
            held, expected = getattr(together, name), getattr(alone, name)
            assert torch.equal(held[row, :length], expected[0, :length])
            assert not held[row, length:].any()
            assert not held[len(histories) :].any(), "learners that nobody gave"
        torch.testing.assert_close(together.counts[row, :length], alone.counts[0, :length])


@given(st.integers(1, 2000))
def test_shapes_are_few_and_hold_what_they_must(size: int) -> None:
    assert size <= rounded(size) <= size * 9 / 8
    assert rounded(rounded(size)) == rounded(size)
    assert len({rounded(one) for one in range(size, 2 * size)}) <= 10


@pytest.mark.parametrize("count", [1, 16, 17, 33])
def test_as_many_learners_are_answered_as_were_given(count: int) -> None:
    batch = collate([history_of([(2, (2,), 1.0, True, 0.0)] * 3)] * count, VOCABULARY)
    told = outcomes(torch.zeros(batch.items.shape), batch)
    assert [one.tolist() for one in told] == [[0.5] * 3] * count


def test_a_batch_carries_the_ids_and_sets_of_its_histories() -> None:
    first: list[Step] = [(2, (2, 3), 1.0, True, 0.0), (3, (), 0.0, False, 1.0)]
    batch = collate([history_of(first), history_of(first[:1])], VOCABULARY)
    assert batch.items.tolist() == [[2, 3], [2, 0]]
    assert batch.skills.tolist() == [[[2, 3], [0, 0]], [[2, 3], [0, 0]]]
    assert batch.mask.tolist() == [[True, True], [True, False]]
    assert batch.scored.tolist() == [[True, False], [True, False]]
    assert batch.counts.shape == (2, 2, len(COLUMNS))


def test_an_unscored_answer_is_still_known_to_later_ones() -> None:
    won: list[Step] = [(2, (2,), 1.0, False, 0.0), (2, (2,), 0.0, True, 1.0)]
    lost: list[Step] = [(2, (2,), 0.0, False, 0.0), (2, (2,), 0.0, True, 1.0)]
    counts = collate([history_of(won), history_of(lost)], VOCABULARY).counts[:, 1]
    assert counts[0, COLUMNS.index("item_wins")] == pytest.approx(math.log(2))
    assert counts[1, COLUMNS.index("item_wins")] == 0.0


def test_two_unseen_items_are_not_taken_for_one() -> None:
    log: list[Step] = [(UNSEEN, (2,), 1.0, True, 0.0), (UNSEEN, (2,), 0.0, True, 1.0)]
    counts = collate([history_of(log)], VOCABULARY).counts[0, 1]
    assert counts[COLUMNS.index("item_wins")] == 0.0
    assert counts[COLUMNS.index("skill_wins")] > 0.0


def table(rows: list[tuple[str, str, list[str], float, float | None, bool]]) -> pl.DataFrame:
    columns = ["learner", "item", "skills", "correct", "time", "scored"]
    return pl.DataFrame(rows, schema={name: CLEAN[name] for name in columns}, orient="row")


ROWS: list[tuple[str, str, list[str], float, float | None, bool]] = [
    ("anna", "a", ["x", "y"], 1.0, 10.0, True),
    ("anna", "new", [], 0.5, None, False),
    ("bert", "b", ["news", "x", "strange"], 0.0, 12.0, True),
]


def test_a_table_becomes_one_history_per_learner_in_its_own_order() -> None:
    anna, bert = examples(table(ROWS), VOCABULARY)
    assert anna.items.tolist() == [2, UNSEEN]
    assert anna.skills.tolist() == [2, 3]
    assert anna.skill_counts.tolist() == [2, 0]
    assert anna.correct.tolist() == [1.0, 0.5]
    assert anna.scored.tolist() == [True, False]
    assert anna.times[0] == 10.0
    assert math.isnan(anna.times[1])
    assert bert.skills.tolist() == [UNSEEN, 2], "unseen skills of one answer are one"
    assert bert.skill_counts.tolist() == [2]


def test_a_table_and_the_vocabulary_agree_on_every_skill_set() -> None:
    for history, (_, _, names, *_) in zip(
        examples(table([ROWS[0], ROWS[2]]), VOCABULARY), (ROWS[0], ROWS[2]), strict=True
    ):
        assert tuple(history.skills) == VOCABULARY.skill_set(names)


def test_renaming_learners_changes_nothing() -> None:
    renamed = table([(f"someone else {row[0]}", *row[1:]) for row in ROWS])
    for ours, theirs in zip(
        examples(table(ROWS), VOCABULARY), examples(renamed, VOCABULARY), strict=True
    ):
        for name in ("items", "skills", "skill_counts", "correct", "scored", "times"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_learner_in_two_pieces_is_our_own_fault() -> None:
    with pytest.raises(AssertionError, match="lie apart"):
        examples(table([ROWS[0], ROWS[2], ROWS[1]]), VOCABULARY)


def test_a_skill_twice_in_one_answer_cannot_leak_the_answer() -> None:
    with pytest.raises(AssertionError, match="repeats a skill"):
        collate([history_of([(2, (2, 2), 1.0, True, 0.0)])], VOCABULARY)


def sample() -> Batch:
    log: list[Step] = [(2, (2,), 1.0, True, 0.0), (3, (), 0.5, False, 1.0), (4, (3,), 0.0, True, 2)]
    nothing: list[Step] = [(2, (2,), 1.0, False, 0.0)]
    return collate([history_of(log), history_of(nothing), history_of(log[:1])], VOCABULARY)


def test_outcomes_are_probabilities_of_scored_steps_in_order() -> None:
    logits = torch.tensor([[0.0, 9.0, math.log(3.0)], [1.0, 9.0, 9.0], [-40.0, 9.0, 9.0]])
    first, second, third = outcomes(logits, sample())
    assert first.dtype == np.float32
    np.testing.assert_allclose(first, [0.5, 0.75], rtol=1e-6)
    assert second.size == 0
    np.testing.assert_allclose(third, [0.0], atol=1e-6)


def test_loss_is_the_sum_over_scored_steps_and_nothing_else() -> None:
    batch = sample()
    logits = torch.randn(batch.items.shape, generator=torch.Generator().manual_seed(0))
    chances = torch.sigmoid(logits)
    expected = -(torch.log(chances[0, 0]) + torch.log(1 - chances[0, 2]) + torch.log(chances[2, 0]))
    torch.testing.assert_close(loss(logits, batch), expected)
    assert weight(batch).item() == 3.0
    moved = logits.clone()
    moved[~batch.scored] += 5.0
    torch.testing.assert_close(loss(moved, batch), loss(logits, batch))


def test_loss_takes_partial_credit() -> None:
    batch = collate([history_of([(2, (2,), 0.5, True, 0.0)])], VOCABULARY)
    expected = math.log(1 + math.e) - 0.5
    assert loss(torch.ones(1, 1), batch).item() == pytest.approx(expected)
