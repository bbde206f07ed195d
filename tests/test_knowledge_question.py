"""What goes into the networks: company, what is dropped and blanked, what is remembered."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ray_jobs.families.knowledge.batch import Batch, collate, examples
from ray_jobs.families.knowledge.counts import COLUMNS, ITEM_COLUMNS
from ray_jobs.families.knowledge.networks.attention import Attention, Layer
from ray_jobs.families.knowledge.networks.blocks import forgetting
from ray_jobs.families.knowledge.networks.neighbours import REACH, item_vectors
from ray_jobs.families.knowledge.networks.question import Answered, Dropout, Question
from ray_jobs.families.knowledge.vocabulary import PADDING, UNSEEN, Vocabulary
from tests.knowledge_parts import VOCABULARY

LETTERS = "abcdefg"


def table_of(logs: list[str]) -> pl.DataFrame:
    """A learner per log, an answer per letter, each to the item of that letter."""
    rows = [(f"l{n}", letter) for n, log in enumerate(logs) for letter in log]
    frame = pl.DataFrame(rows, schema=["learner", "item"], orient="row")
    return frame.with_columns(
        skills=pl.lit([], dtype=pl.List(pl.String)),
        correct=pl.lit(1.0),
        time=pl.lit(None, pl.Float64),
        scored=True,
    )


def company(logs: list[str], names: tuple[str, ...]) -> NDArray[np.float64]:
    """How much more often than by chance two items lie near each other, pair by pair."""
    near = Counter(
        (log[i], log[j])
        for log in logs
        for i in range(len(log))
        for j in range(len(log))
        if 1 <= abs(i - j) <= REACH and log[i] != log[j]
    )
    total, alone = sum(near.values()), Counter[str]()
    for (one, _), times in near.items():
        alone[one] += times
    matrix = np.zeros((len(names), len(names)))
    for (one, other), times in near.items():
        surprise = math.log(times * total / (alone[one] * alone[other]))
        matrix[names.index(one), names.index(other)] = max(surprise, 0.0)
    return matrix


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(LETTERS, min_size=1, max_size=20), min_size=1, max_size=6))
def test_item_vectors_factor_a_plain_count_of_who_is_near_whom(logs: list[str]) -> None:
    table = table_of([LETTERS, *logs])
    vocabulary = Vocabulary.of([table])
    vectors = item_vectors([table], vocabulary, len(LETTERS) + 2)
    assert not vectors[:2].any()
    values, directions = np.linalg.eigh(company([LETTERS, *logs], vocabulary.items))
    expected = directions * np.abs(values) @ directions.T  # of which the vectors are a root
    assume((expected.diagonal() > 1e-6).all())
    found = vectors[2:].double()
    expected /= expected.diagonal().mean() / vectors.shape[1]
    assert found.square().mean().item() == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-3)


def test_an_item_of_another_table_keeps_no_company() -> None:
    table = table_of(["abcab"])
    vectors = item_vectors([table], Vocabulary(tuple("xabcy"), ()), 4)
    assert (vectors.abs().amax(dim=1) > 1e-6).tolist() == [False] * 3 + [True] * 3 + [False]
    assert item_vectors([table], Vocabulary(tuple("abc"), ()), 1).shape == (5, 1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_dropout_drops_its_share_and_keeps_the_mean_but_nothing_in_service(share: float) -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(share), torch.ones(200, 500)
    dropped = dropout(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropout.eval()(x), x)


def batch() -> Batch:
    table = table_of(["abcabcabc", "aab"]).with_columns(pl.col("item").replace({"c": "new"}))
    return collate(examples(table, Vocabulary(tuple(LETTERS), ())), Vocabulary(tuple(LETTERS), ()))


def question(blank: float, **more: Any) -> Question:
    torch.manual_seed(0)
    settings_of: dict[str, Any] = {"width": 8, "neighbours": 0, "dropout": 0.0, "blank": blank}
    return Question(Vocabulary(tuple(LETTERS), ()), **{**settings_of, **more})


def test_a_share_of_the_items_is_blanked_each_wherever_it_stands_with_its_counts() -> None:
    module, given_batch = question(blank=0.25), batch()
    gone = []
    for seed in range(200):
        torch.manual_seed(seed)
        items, counts = module._blanked(given_batch.items, given_batch.counts)
        changed = items != given_batch.items
        assert (items[changed] == UNSEEN).all()
        assert not counts[..., ITEM_COLUMNS][changed].any()
        kept = ~changed & (given_batch.items != UNSEEN)
        assert torch.equal(counts[kept], given_batch.counts[kept])
        for item in set(given_batch.items.flatten().tolist()):
            here = changed[given_batch.items == item]
            assert here.all() or not here.any(), "an item is blanked everywhere or nowhere"
        assert not changed[given_batch.items == PADDING].any()
        gone.append(changed[given_batch.items > UNSEEN].float().mean().item())
    assert np.mean(gone) == pytest.approx(0.25, abs=0.05)


def test_training_leaves_its_batch_as_it_was() -> None:
    module, given_batch = question(blank=1.0), batch()
    before = copy.deepcopy(given_batch)
    module(given_batch)
    assert torch.equal(given_batch.counts, before.counts)
    assert torch.equal(given_batch.items, before.items)
    assert before.counts[..., COLUMNS.index("item_wins")].any()


def test_what_is_asked_is_the_mean_of_its_skills_however_many_the_widest_set_has() -> None:
    def vectors(sets: list[list[str]]) -> torch.Tensor:
        table = table_of(["a"] * len(sets)).with_columns(
            learner=pl.Series([str(n) for n in range(len(sets))]),
            skills=pl.Series(sets, dtype=pl.List(pl.String)),
        )
        torch.manual_seed(0)
        module = Question(VOCABULARY, width=8, neighbours=0, dropout=0.0, blank=0.0).eval()
        module.norm = torch.nn.Identity()  # type: ignore[assignment]
        found = module(collate(examples(table, VOCABULARY), VOCABULARY))[0][:, 0]
        assert isinstance(found, torch.Tensor)
        return found

    add, sub, both = vectors([["add"], ["sub"], ["add", "sub"]])
    torch.testing.assert_close(both, (add + sub) / 2)
    torch.testing.assert_close(vectors([["add"]])[0], add)
    (none,) = vectors([[]])
    assert not torch.allclose(none, add)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_an_answer_is_remembered_by_its_question_and_half_of_it_lies_halfway() -> None:
    past, shape = Answered(4), batch().correct.shape

    def memory(credit: float, seed: int = 0) -> torch.Tensor:
        found = past(drawn(*shape, 4, seed=seed), torch.full(shape, credit), batch().counts)
        assert isinstance(found, torch.Tensor)
        assert not found[:, 0].any(), "before the first answer there is nothing to remember"
        return found[:, 1:]

    wrong, half, right = map(memory, (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (wrong + right) / 2)
    assert not torch.allclose(wrong, right)
    for credit, same in ((0.0, wrong), (1.0, right)):
        assert not torch.allclose(memory(credit, seed=1), same), "whatever its outcome"


def test_what_is_looked_up_among_answers_is_their_questions_and_not_the_one_asked_now() -> None:
    torch.manual_seed(0)
    layer = Layer(Attention(width=8, heads=2, block=4, dropout=0.0)).eval()
    torch.nn.init.zeros_(layer.query.weight)  # who looks does not know what is asked
    asked, state = drawn(1, 7, 8), drawn(1, 7, 8, seed=1)
    usual, _ = layer(asked, state)
    for step in range(6):
        other = asked.clone()
        other[:, step] += 1.0
        moved = (layer(other, state)[0] - usual).abs().amax(dim=(0, 2)) > 1e-6
        assert not moved[: step + 1].any()
        assert moved[step + 1]


@pytest.mark.parametrize("heads", [2, 4, 8])
def test_one_head_hears_of_a_whole_block_and_another_of_the_last_few_answers(heads: int) -> None:
    weights = forgetting(heads, 128)[:, -1].exp()  # what the last step of a block hears, (H, 2C)
    assert weights[-1, 128] > 0.5
    assert weights[0, -6:].sum() > 0.9 * weights[0].sum()
