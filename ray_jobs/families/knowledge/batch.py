"""Histories to tensors: the one collate function of training, evaluation and serving.

One function, so that the three cannot differ. Everything at step t is known
before the answer at step t, except `correct`, which a network must shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_jobs.families.knowledge.answers import Answers
from ray_jobs.families.knowledge.counts import asked_counts, causal_counts
from ray_jobs.families.knowledge.tallies import NO_TALLIES, Tallies, tallied
from ray_jobs.families.knowledge.vocabulary import UNSEEN, Vocabulary

Places = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows and columns of a padded table
KEEPING = 50  # positions that it takes as long as, to pack what is kept


@dataclass(frozen=True)
class History:
    """The answers of one learner in order of time, as ids; T answers, S skills in all.

    An answer that is asked for is the last one: a later step would take its
    `correct` for something the learner did.
    """

    items: NDArray[np.int64]  # (T,)
    skills: NDArray[np.int64]  # (S,) skill sets laid end to end, no repeats within a set
    skill_counts: NDArray[np.int64]  # (T,) how many of `skills` belong to each answer; may be 0
    correct: NDArray[np.float32]  # (T,) 0..1; what is asked for holds 0.
    scored: NDArray[np.bool_]  # (T,) True where the answer is trained on, evaluated or asked for
    times: NDArray[np.float64]  # (T,) unix seconds, NaN when unknown


@dataclass(frozen=True)
class Carried:
    """What is left of a learner's first answers, so that they need not be told again."""

    tallies: Tallies
    memory: NDArray[np.float32]  # (W,) what the network keeps of them, as it lays it out


@dataclass(frozen=True)
class Kept:
    """T answers of one learner, of which a network is to keep what it needs for what follows."""

    history: History
    carried: Carried | None = None  # of the answers before these


@dataclass(frozen=True)
class Asked:
    """Q questions to one learner after T answers, none of which knows of another."""

    history: History
    items: NDArray[np.int64]  # (Q,)
    skills: NDArray[np.int64]  # (S,) skill sets laid end to end, no repeats within a set
    skill_counts: NDArray[np.int64]  # (Q,)
    now: float  # unix seconds; NaN: right after the last answer
    carried: Carried | None = None  # of the answers before these


@dataclass(frozen=True)
class Questions:
    """What B learners are asked after their histories, right-padded to Q questions."""

    items: Tensor  # (B, Q) int64; padding holds 0
    skills: Tensor  # (B, Q, K) int64; padding holds 0
    counts: Tensor  # (B, Q, C) float32; causal count features, of the whole history
    mask: Tensor  # (B, Q) bool; True where something is asked


@dataclass(frozen=True)
class Batch:
    """Histories of at most B learners, right-padded to T steps and K skills per answer.

    B, T and Q are `rounded`.
    """

    items: Tensor  # (B, T) int64; padding holds 0
    skills: Tensor  # (B, T, K) int64; padding holds 0
    correct: Tensor  # (B, T) float32; padding holds 0.
    mask: Tensor  # (B, T) bool; True where an answer was given or is asked for
    scored: Tensor  # (B, T) bool; True where the loss and the metrics look
    counts: Tensor  # (B, T, C) float32; causal count features, of strictly earlier answers
    learners: int  # the first rows, which hold an example each; those below them are padding
    questions: Questions | None = None  # where there are some, they alone are predicted, (B, Q)
    # (B, W) what the network kept of each learner's answers before these; NaN: there were none
    memory: Tensor | None = None
    before: Tensor | None = None  # (B,) int64: how many answers those were
    keeps: bool = False  # what is to be kept of them is asked for, and nothing else


def cost(example: History | Asked | Kept) -> int:
    """Positions an example takes in a batch."""
    if isinstance(example, Kept):
        return KEEPING + len(example.history.items)
    if isinstance(example, Asked):
        return len(example.history.items) + len(example.items)
    return len(example.items)


def rounded(size: int) -> int:
    """The least size of a grid, eight to each doubling above eight, that is not below `size`.

    A kernel is made for each shape it meets, which can take longer than its use. On a grid
    shapes come again, for some 6 % more padding each way.
    """
    step: int = 1 << max(0, (size - 1).bit_length() - 4)
    return -(-size // step) * step


def examples(table: pl.DataFrame, vocabulary: Vocabulary) -> list[History]:
    """One history per learner of a clean table, in the order of the table.

    The table holds each learner's answers in one piece, in order of time.
    """
    lengths = table["learner"].rle().struct.field("len").to_numpy().astype(np.int64)
    assert len(lengths) == table["learner"].n_unique(), "a learner's answers lie apart"
    skills, skill_counts = _skill_sets(table["skills"], vocabulary)
    items = _ids(table["item"], vocabulary.item_ids)
    correct = table["correct"].to_numpy().astype(np.float32)
    scored = table["scored"].to_numpy().astype(np.bool_)
    times = table["time"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    ends = np.cumsum(lengths)
    tag_ends = np.concatenate([[0], np.cumsum(skill_counts)])
    return [
        History(
            items=items[i:j],
            skills=skills[tag_ends[i] : tag_ends[j]],
            skill_counts=skill_counts[i:j],
            correct=correct[i:j],
            scored=scored[i:j],
            times=times[i:j],
        )
        for i, j in zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    ]


def collate(
    examples: Sequence[History] | Sequence[Asked] | Sequence[Kept], vocabulary: Vocabulary
) -> Batch:
    """Pad examples of one kind into one batch, and count what each learner has shown before."""
    assert len({type(example) for example in examples}) == 1, "examples of several kinds"
    asked = [example for example in examples if isinstance(example, Asked)]
    kept = [example for example in examples if isinstance(example, Kept)]
    histories = [e if isinstance(e, History) else e.history for e in examples]
    lengths = np.array([len(h.items) for h in histories], np.int64)
    answers = _end_to_end(histories, lengths)
    assert answers.items.max(initial=0) < len(vocabulary.items) + 2, "ids of another vocabulary"
    where = (answers.learner, answers.step)
    carried = [one.carried for one in asked or kept]
    before = [one.tallies if one else NO_TALLIES for one in carried] if any(carried) else ()
    # Where nobody has answered anything there is a step of padding, so that no tensor is empty.
    shape = (rounded(len(histories)), rounded(max(1, int(lengths.max()))))
    scored = np.concatenate([h.scored for h in histories])
    return Batch(
        items=_padded(answers.items, where, shape),
        skills=_padded_sets(answers, where, shape),
        correct=_padded(answers.correct, where, shape),
        mask=_padded(np.ones(len(answers.items), np.bool_), where, shape),
        scored=_padded(scored, where, shape),
        learners=len(histories),
        **_counted(asked, answers, lengths, before, where, shape),
        **_before(carried, shape[0]),
        keeps=bool(kept),
    )


def _before(carried: Sequence[Carried | None], rows: int) -> dict[str, Any]:
    """Fields of a batch that tell of what went before; none where nothing did."""
    given = [(row, one) for row, one in enumerate(carried) if one is not None]
    if not given:
        return {}
    memory = torch.full((rows, len(given[0][1].memory)), torch.nan)
    before = torch.zeros(rows, dtype=torch.int64)
    for row, one in given:
        memory[row] = torch.from_numpy(one.memory)
        before[row] = one.tallies.steps
    return {"memory": memory, "before": before}


def counted(history: History, carried: Carried | None) -> Tallies:
    """What is counted of a learner's answers, those carried among them."""
    answers = _end_to_end([history], np.array([len(history.items)], np.int64))
    return tallied(answers, carried.tallies if carried else NO_TALLIES)


def _counted(
    asked: Sequence[Asked],
    answers: Answers,
    lengths: NDArray[np.int64],
    before: Sequence[Tallies],
    where: Places,
    shape: tuple[int, int],
) -> dict[str, Any]:
    """Fields of a batch that hold what is counted, and what is asked where something is."""
    if not asked:
        return {"counts": _padded(causal_counts(answers, before), where, shape)}
    questions, places = _asked_end_to_end(asked, lengths)
    counts, theirs = asked_counts(answers, questions, before)
    return {
        "counts": _padded(counts, where, shape),
        "questions": _questions(questions, theirs, places, len(asked)),
    }


def _asked_end_to_end(asked: Sequence[Asked], lengths: NDArray[np.int64]) -> tuple[Answers, Places]:
    """Questions after the answers of as many learners, and where they stand in a table."""
    sizes = np.array([len(one.items) for one in asked], np.int64)
    total, skill_counts = int(sizes.sum()), np.concatenate([one.skill_counts for one in asked])
    learner = np.repeat(np.arange(len(asked)), sizes)
    questions = Answers(
        learner=learner,
        step=np.repeat(lengths, sizes),
        items=np.concatenate([one.items for one in asked]),
        correct=np.zeros(total, np.float32),
        times=np.repeat([one.now for one in asked], sizes),
        skills=np.concatenate([one.skills for one in asked]),
        skill_counts=skill_counts,
        owner=np.repeat(np.arange(total), skill_counts),
    )
    return questions, (learner, np.arange(total) - np.repeat(np.cumsum(sizes) - sizes, sizes))


def _questions(
    questions: Answers, counts: NDArray[np.float32], where: Places, learners: int
) -> Questions:
    """Pad what is asked of some learners."""
    shape = (rounded(learners), rounded(int(where[1].max(initial=-1)) + 1))
    return Questions(
        items=_padded(questions.items, where, shape),
        skills=_padded_sets(questions, where, shape),
        counts=_padded(counts, where, shape),
        mask=_padded(np.ones(len(questions.items), np.bool_), where, shape),
    )


def between(history: History, begin: int, end: int) -> History:
    """The answers of a history from one, without another."""
    tags = np.concatenate([[0], np.cumsum(history.skill_counts)])
    return History(
        items=history.items[begin:end],
        skills=history.skills[tags[begin] : tags[end]],
        skill_counts=history.skill_counts[begin:end],
        correct=history.correct[begin:end],
        scored=history.scored[begin:end],
        times=history.times[begin:end],
    )


def outcomes(logits: Tensor, batch: Batch) -> list[NDArray[np.float32]]:
    """Probabilities of a correct answer of each example, in order: what is asked, or scored.

    Of examples that are `Kept` it is how many of their answers need not be told again, and
    then what the network keeps of them.
    """
    if batch.keeps:
        return list(logits.detach().float().cpu().numpy()[: batch.learners])
    chosen = batch.scored if batch.questions is None else batch.questions.mask
    flat = torch.sigmoid(logits.detach().float())[chosen].cpu().numpy()
    ends = chosen[: batch.learners].sum(dim=1).cumsum(dim=0).tolist()
    return [flat[i:j] for i, j in zip([0, *ends[:-1]], ends, strict=True)]


def _ids(names: pl.Series, ids: dict[str, int]) -> NDArray[np.int64]:
    known = pl.Series(list(ids), dtype=pl.String)
    numbers = pl.Series(list(ids.values()), dtype=pl.Int64)
    mapped = names.replace_strict(known, numbers, default=UNSEEN, return_dtype=pl.Int64)
    return mapped.to_numpy().astype(np.int64)


def _skill_sets(
    sets: pl.Series, vocabulary: Vocabulary
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Skill ids laid end to end, ascending and without repeats in each set, and the set sizes."""
    lengths = sets.list.len().fill_null(0).to_numpy().astype(np.int64)
    ids = _ids(sets.explode().drop_nulls(), vocabulary.skill_ids)
    size = len(vocabulary.skills) + 2
    owner = np.repeat(np.arange(len(lengths)), lengths)
    # Several unseen skills of one answer become one.
    pairs = np.unique(owner * size + ids)
    return pairs % size, np.bincount(pairs // size, minlength=len(lengths)).astype(np.int64)


def _end_to_end(histories: Sequence[History], lengths: NDArray[np.int64]) -> Answers:
    skill_counts = np.concatenate([h.skill_counts for h in histories])
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    return Answers(
        learner=np.repeat(np.arange(len(lengths)), lengths),
        step=np.arange(total) - np.repeat(starts, lengths),
        items=np.concatenate([h.items for h in histories]),
        correct=np.concatenate([h.correct for h in histories]),
        times=np.concatenate([h.times for h in histories]),
        skills=np.concatenate([h.skills for h in histories]),
        skill_counts=skill_counts,
        owner=np.repeat(np.arange(total), skill_counts),
    )


def _padded_sets(answers: Answers, where: Places, shape: tuple[int, int]) -> Tensor:
    """Skill sets (*shape, K); padding holds 0."""
    starts = np.cumsum(answers.skill_counts) - answers.skill_counts
    within = np.arange(len(answers.skills)) - starts[answers.owner]
    skills = np.zeros((*shape, max(1, int(answers.skill_counts.max(initial=0)))), np.int64)
    row, column = (place[answers.owner] for place in where)
    skills[row, column, within] = answers.skills
    return torch.from_numpy(skills)


def _padded(
    values: NDArray[np.generic],
    where: Places,
    shape: tuple[int, int],
) -> Tensor:
    padded = np.zeros((*shape, *values.shape[1:]), values.dtype)
    padded[where] = values
    return torch.from_numpy(padded)
