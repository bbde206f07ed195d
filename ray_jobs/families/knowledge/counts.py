"""What a learner has shown so far, as numbers: the causal count features of a batch.

Wins, fails, decayed means, last result and gaps per skill set, per item and
over all, of strictly earlier answers. Logistic regression on these is already
hard to beat (Gervet et al. 2020), so every network gets them at its head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ray_jobs.families.knowledge.answers import Answers
from ray_jobs.families.knowledge.tallies import FAST, NO_TALLIES, NOTHING, SLOW, Seeds, Tallies
from ray_jobs.families.knowledge.vocabulary import UNSEEN

NEGLIGIBLE = 1e-7  # weight below which an old answer is no longer added to a decayed mean

PAST = ("wins", "fails", "fast", "slow", "last", "hours", "gap")
COLUMNS = (
    *(f"skill_{name}" for name in PAST),
    *(f"item_{name}" for name in PAST),
    *(f"all_{name}" for name in PAST if name != "gap"),  # it would be 1 everywhere
    "all_skills",
)
ITEM_COLUMNS = slice(len(PAST), 2 * len(PAST))


def causal_counts(answers: Answers, before: Sequence[Tallies] = ()) -> NDArray[np.float32]:
    """Count features, (N, C) in the order of COLUMNS; row i looks at earlier answers only.

    `before` tells of each learner what was counted before those answers; without it, nothing was.
    """
    everyone = np.arange(len(answers.items))
    begun = _Begun.of(answers, before)
    later = begun.later(answers)
    skill_key = _skill_key(answers, begun.size)
    tags, first = _past(later, skill_key, answers.owner, begun.skills)
    by_item, _ = _past(later, _item_key(answers, begun.size), everyone, begun.items)
    overall, _ = _past(later, answers.learner, everyone, begun.overall)
    skills = _met_before(answers, first & ~begun.skills.found(skill_key)[1], begun)
    return _features(answers, tags, by_item, overall, skills)


def asked_counts(
    answers: Answers, questions: Answers, before: Sequence[Tallies] = ()
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Count features of N answers, (N, C), and of Q questions, (Q, C), that come after them.

    Those of answers are `causal_counts`; a question's look at all answers of its learner, as if
    it were the next step, and at no other question. Both at once, since they count the same.
    """
    every, known = _joined(answers, questions), len(answers.items)
    begun = _Begun.of(every, before)
    every = begun.later(every)
    skill_key, tagged = _skill_key(every, begun.size), len(answers.owner)
    tags = _Both.of(every, skill_key, every.owner, tagged, begun.skills)
    everything = np.arange(len(every.items))
    item_key = _item_key(every, begun.size)
    by_item = _Both.of(every, item_key, everything, known, begun.items)
    of_all = _Both.of(every, every.learner, everything, known, begun.overall)
    seen = begun.skills.found(skill_key[:tagged])[1]
    earlier = _met_before(answers, tags.first & ~seen, begun)
    # One entry for each pair of learner and skill, so that each skill counts once.
    new = skill_key[:tagged][tags.first & ~seen] // begun.size
    met = begun.met + np.bincount(new, minlength=len(begun.met))
    return (
        _features(answers, tags.answers, by_item.answers, of_all.answers, earlier),
        _features(
            questions,
            tags.questions,
            by_item.questions,
            of_all.questions,
            met[questions.learner].astype(np.float64),
        ),
    )


@dataclass(frozen=True)
class _Both:
    """`_past` of answers, and of the questions after them, of which none is a past of another."""

    answers: NDArray[np.float64]  # (PAST, M)
    first: NDArray[np.bool_]  # (M,) no earlier entry has its key
    questions: NDArray[np.float64]  # (PAST, Q)

    @classmethod
    def of(
        cls,
        every: Answers,
        key: NDArray[np.int64],
        owner: NDArray[np.int64],
        known: int,
        seeds: Seeds,
    ) -> _Both:
        """Of entries about answers, and from `known` on about questions."""
        _, first, again = np.unique(key[known:], return_index=True, return_inverse=True)
        kept = np.concatenate([np.arange(known), known + first])
        past, fresh = _past(every, key[kept], owner[kept], seeds)
        return cls(past[:, :known], fresh[:known], past[:, known:][:, again])


def _met_before(answers: Answers, new: NDArray[np.bool_], begun: _Begun) -> NDArray[np.float64]:
    """(N,) how many skills each answer's learner had practised before it."""
    met = _per_answer(answers, new[None].astype(np.float64))[0]
    begins = np.arange(len(answers.items)) - answers.step
    return _sum_before(met, begins) + begun.met[answers.learner]


@dataclass(frozen=True)
class _Begun:
    """What was counted of L learners before their answers."""

    size: int  # more than any id of an item or a skill
    skills: Seeds
    items: Seeds
    overall: Seeds
    steps: NDArray[np.int64]  # (L,) how many answers that were
    met: NDArray[np.int64]  # (L,) how many skills they practised

    @classmethod
    def of(cls, answers: Answers, before: Sequence[Tallies]) -> _Begun:
        """Before these answers, whose learners are numbered as `before` is; empty: nothing was."""
        learners = int(answers.learner.max(initial=-1)) + 1
        # Many may be variants of one: what went before them is laid out once.
        kinds = list({id(one): one for one in before or [NO_TALLIES]}.values())
        number = {id(one): n for n, one in enumerate(kinds)}
        which = np.array([number[id(one)] for one in before] or [0] * learners, np.int64)
        largest = max(int(t.ids.max(initial=0)) for one in kinds for t in (one.skills, one.items))
        size = max(_size(answers), largest + 1)
        skills, items, overall = (
            Seeds.of([getattr(one, name) for one in kinds], which, width)
            for name, width in (("skills", size), ("items", size), ("overall", 1))
        )
        steps = np.array([one.steps for one in kinds], np.int64)[which]
        met = np.array([len(one.skills.ids) for one in kinds], np.int64)[which]
        return cls(size, skills, items, overall, steps, met)

    def later(self, answers: Answers) -> Answers:
        """Answers whose steps are counted from a learner's first."""
        return replace(answers, step=answers.step + self.steps[answers.learner])


def _features(
    answers: Answers,
    tags: NDArray[np.float64],  # (PAST, S)
    by_item: NDArray[np.float64],  # (PAST, N)
    overall: NDArray[np.float64],  # (PAST, N)
    skills: NDArray[np.float64],  # (N,) how many were met before
) -> NDArray[np.float32]:
    features = np.empty((len(COLUMNS), len(answers.items)), np.float32)
    features[: len(PAST)] = _per_answer(answers, tags)
    features[: len(PAST)] /= np.maximum(answers.skill_counts, 1)
    features[ITEM_COLUMNS] = by_item
    features[ITEM_COLUMNS.stop : -1] = overall[:-1]
    features[-1] = np.log1p(skills)
    return np.ascontiguousarray(features.T)


def _joined(answers: Answers, questions: Answers) -> Answers:
    """All answers, then all questions."""
    both = {
        name: np.concatenate([getattr(answers, name), getattr(questions, name)])
        for name in ("learner", "step", "items", "correct", "times", "skills", "skill_counts")
    }
    owner = np.concatenate([answers.owner, len(answers.items) + questions.owner])
    return Answers(**both, owner=owner)


def _size(answers: Answers) -> int:
    """More than any id of an item or a skill."""
    return max(int(answers.items.max(initial=0)), int(answers.skills.max(initial=0))) + 1


def _skill_key(answers: Answers, size: int) -> NDArray[np.int64]:
    """(S,) one number for each pair of learner and skill."""
    return answers.learner[answers.owner] * size + answers.skills


def _item_key(answers: Answers, size: int) -> NDArray[np.int64]:
    """(N,) one number for each pair of learner and item."""
    key = answers.learner * size + answers.items
    # Unseen items share an id but not a past: each counts as met for the first time.
    unseen = np.flatnonzero(answers.items == UNSEEN)
    key[unseen] = -1 - unseen
    return key


def _past(
    answers: Answers,
    key: NDArray[np.int64],
    owner: NDArray[np.int64],
    seeds: Seeds,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Features of the earlier entries with the same key, (PAST, M), and whether there are none.

    Entry m is about answer `owner[m]`; owners ascend, so a stable sort keeps time. `seeds`
    are what was counted of a key before its first entry.
    """
    order = np.argsort(key, kind="stable")
    key, owner = key[order], owner[order]
    index = np.arange(len(key))
    fresh = np.ones(len(key), np.bool_)
    fresh[1:] = key[1:] != key[:-1]
    assert not (~fresh[1:] & (owner[1:] == owner[:-1])).any(), "an answer repeats a skill"
    start = np.maximum.accumulate(np.where(fresh, index, 0))
    rank = index - start
    correct = answers.correct[owner].astype(np.float64)
    begun = seeds.seeded(key[fresh])
    given, wins_then, fast, slow, last_then, hours, step, _ = (
        NOTHING if begun is None else begun[np.cumsum(fresh) - 1].T
    )
    every = np.add(given, rank, dtype=np.float64)
    wins = wins_then + _sum_before(correct, start)
    last = np.where(fresh, last_then, _previous(2.0 * correct - 1.0))
    sorted_past = (
        np.log1p(wins),
        np.log1p(np.maximum(every - wins, 0.0)),
        _decayed(np.where(fresh, fast, last), rank, every, FAST),
        _decayed(np.where(fresh, slow, last), rank, every, SLOW),
        last,
        _since(answers.times[owner] / 3600.0, fresh, hours),
        _since(answers.step[owner].astype(np.float64), fresh, step),
    )
    past, first = np.empty((len(PAST), len(key))), np.empty_like(fresh)
    for feature, values in zip(past, sorted_past, strict=True):
        feature[order] = values
    first[order] = fresh
    return past, first


def _previous(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each entry the one before it; of the first, 0."""
    before = np.zeros_like(values)
    before[1:] = values[:-1]
    return before


def _sum_before(values: NDArray[np.float64], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of the values from `start` up to, and without, each entry."""
    before = np.cumsum(values) - values
    return np.maximum(before - before[start], 0.0)


def _decayed(
    last: NDArray[np.float64], rank: NDArray[np.int64], given: NDArray[np.float64], keep: float
) -> NDArray[np.float64]:
    """Exponentially decayed mean of the results so far (-1..1), shrunk to 0 by one empty answer.

    `last` holds, of the first entry of a group, the decayed sum before it. A prefix scan in
    doubling strides: some eight array operations for any length.
    """
    total, stride, longest = last.copy(), 1, int(rank.max(initial=0))
    while stride <= longest and keep**stride > NEGLIGIBLE:
        inside = rank[stride:] >= stride
        total[stride:] = total[stride:] + np.where(inside, keep**stride * total[:-stride], 0.0)
        stride *= 2
    weight: NDArray[np.float64] = (1.0 - np.power(keep, given)) / (1.0 - keep)
    return total / (weight + 1.0)


def _since(
    clock: NDArray[np.float64], fresh: NDArray[np.bool_], then: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """log1p of what passed since the previous entry; 0 where there is none, or no clock.

    Before the first entry of a group it was `then`.
    """
    passed = clock - np.where(fresh, then, _previous(clock))
    # fmax prefers a number to NaN, and so an unknown time counts as none passed.
    return np.log1p(np.fmax(passed, 0.0))


def _per_answer(answers: Answers, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum what is per skill, (K, S), over each answer's set, (K, N); 0 for an empty set."""
    if (answers.skill_counts == 1).all():
        return values
    sums = np.zeros((len(values), len(answers.items)))
    some = answers.skill_counts > 0
    if some.any():
        starts = np.cumsum(answers.skill_counts) - answers.skill_counts
        sums[:, some] = np.add.reduceat(values, starts[some], axis=1)
    return sums
