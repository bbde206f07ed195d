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

from ray_jobs.families.knowledge.vocabulary import UNSEEN

FAST, SLOW = 0.6, 0.9  # how much of an answer's weight is left at the next one of its group
NEGLIGIBLE = 1e-7  # weight below which an old answer is no longer added to a decayed mean

PAST = ("wins", "fails", "fast", "slow", "last", "hours", "gap")
COLUMNS = (
    *(f"skill_{name}" for name in PAST),
    *(f"item_{name}" for name in PAST),
    *(f"all_{name}" for name in PAST if name != "gap"),  # it would be 1 everywhere
    "all_skills",
)
ITEM_COLUMNS = slice(len(PAST), 2 * len(PAST))
# What must be known of a group of answers to count on: how many and how many right, decayed
# sums of results (-1..1), the last result, when it was (hours) and which answer of the learner;
# and, of those whose time is known, when the last one was.
TALLIED = ("given", "wins", "fast", "slow", "last", "hours", "step", "latest")
NOTHING = (0.0, 0.0, 0.0, 0.0, 0.0, np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Answers:
    """The answers of several learners laid end to end: N answers, S skills in all."""

    learner: NDArray[np.int64]  # (N,) ascending
    step: NDArray[np.int64]  # (N,) 0.. within the learner
    items: NDArray[np.int64]  # (N,)
    correct: NDArray[np.float32]  # (N,)
    times: NDArray[np.float64]  # (N,) unix seconds, NaN when unknown
    skills: NDArray[np.int64]  # (S,) a set per answer, so no repeats within one
    skill_counts: NDArray[np.int64]  # (N,)
    owner: NDArray[np.int64]  # (S,) the answer that a skill belongs to, ascending


@dataclass(frozen=True)
class Tally:
    """What was counted of M groups of a learner's answers: by skill, by item, or of all."""

    ids: NDArray[np.int64]  # (M,) ascending, each once
    sums: NDArray[np.float64]  # (M, TALLIED)

    @classmethod
    def empty(cls) -> Tally:
        return cls(np.empty(0, np.int64), np.empty((0, len(TALLIED))))


@dataclass(frozen=True)
class Tallies:
    """What was counted of a learner's answers, as if nothing else were left of them."""

    steps: int  # how many there were
    skills: Tally
    items: Tally  # UNSEEN is none of them
    overall: Tally  # its one id is 0

    @classmethod
    def empty(cls) -> Tallies:
        return cls(0, Tally.empty(), Tally.empty(), Tally.empty())


NO_TALLIES = Tallies.empty()


def tallied(answers: Answers, before: Tallies) -> Tallies:
    """What was counted before, and the answers of one learner since."""
    known, owner = answers.items != UNSEEN, answers.owner
    everyone = np.arange(len(answers.items))
    return Tallies(
        steps=before.steps + len(answers.items),
        skills=_tally(answers, before.steps, answers.skills, owner, before.skills),
        items=_tally(answers, before.steps, answers.items[known], everyone[known], before.items),
        overall=_tally(answers, before.steps, 0 * everyone, everyone, before.overall),
    )


def _tally(
    answers: Answers, steps: int, ids: NDArray[np.int64], owner: NDArray[np.int64], before: Tally
) -> Tally:
    """Entries, in order of time, added to what was counted before them."""
    order = np.argsort(ids, kind="stable")
    owner = owner[order]
    new, start, given = np.unique(ids[order], return_index=True, return_counts=True)
    every = np.union1d(before.ids, new)
    sums = np.tile(np.array(NOTHING), (len(every), 1))
    sums[np.searchsorted(every, before.ids)] = before.sums
    if len(new):
        correct = answers.correct[owner].astype(np.float64)
        results, last = 2.0 * correct - 1.0, start + given - 1
        age = np.repeat(last, given) - np.arange(len(owner))
        at = np.searchsorted(every, new)
        old, found = sums[at], sums[at].copy()
        found[:, 0] += given
        found[:, 1] += np.add.reduceat(correct, start)
        for column, keep in ((2, FAST), (3, SLOW)):
            more = np.add.reduceat(np.power(keep, age) * results, start)
            found[:, column] = old[:, column] * np.power(keep, given) + more
        found[:, 4] = results[last]
        hours = answers.times[owner] / 3600.0
        found[:, 5] = hours[last]
        found[:, 6] = steps + answers.step[owner[last]]
        found[:, 7] = np.fmax(old[:, 7], np.fmax.reduceat(hours, start))
        sums[at] = found
    return Tally(every, sums)


def causal_counts(answers: Answers) -> NDArray[np.float32]:
    """Count features, (N, C) in the order of COLUMNS; row i looks at earlier answers only."""
    everyone = np.arange(len(answers.items))
    size = _size(answers)
    tags, first = _past(answers, _skill_key(answers, size), answers.owner)
    by_item, _ = _past(answers, _item_key(answers, size), everyone)
    overall, _ = _past(answers, answers.learner, everyone)
    met = _per_answer(answers, first[:, None].astype(np.float64))[:, 0]
    skills = _sum_before(met, everyone - answers.step)
    return _features(answers, tags, by_item, overall, skills)


def asked_counts(
    answers: Answers, questions: Answers, before: Sequence[Tallies] = ()
) -> NDArray[np.float32]:
    """Count features of Q questions, (Q, C): each looks at all answers of its learner.

    They are what `causal_counts` says of one that is the learner's next step. `before` tells
    of each learner what was counted before those answers; without it, nothing was.
    """
    every, known = _joined(answers, questions), len(answers.items)
    learners = int(every.learner.max(initial=-1)) + 1
    # Many questions may be variants of one: what went before them is laid out once.
    kinds = list({id(one): one for one in before or [NO_TALLIES]}.values())
    number = {id(one): n for n, one in enumerate(kinds)}
    which = np.array([number[id(one)] for one in before] or [0] * learners, np.int64)
    largest = max(int(t.ids.max(initial=0)) for one in kinds for t in (one.skills, one.items))
    size = max(_size(every), largest + 1)
    skills, items, overall = (
        _Seeds.of([getattr(one, name) for one in kinds], which, width)
        for name, width in (("skills", size), ("items", size), ("overall", 1))
    )
    steps = np.array([one.steps for one in kinds], np.int64)[which]
    every = replace(every, step=every.step + steps[every.learner])
    skill_key = _skill_key(every, size)
    tags = _last_of_each(every, skill_key, every.owner, len(answers.owner), skills)
    everything = np.arange(len(every.items))
    by_item = _last_of_each(every, _item_key(every, size), everything, known, items)
    of_all = _last_of_each(every, every.learner, everything, known, overall)
    # One entry for each pair of learner and skill, so that each skill counts once.
    met = np.unique(skill_key[: len(answers.owner)])
    new = np.bincount(met[~skills.found(met)[1]] // size, minlength=learners)
    counted = new + np.array([len(one.skills.ids) for one in kinds], np.int64)[which]
    known_skills = counted[questions.learner].astype(np.float64)
    return _features(questions, tags, by_item, of_all, known_skills)


@dataclass(frozen=True)
class _Seeds:
    """What was counted of groups before their first entry, under keys of K learners' pasts."""

    keys: NDArray[np.int64]  # (G,) ascending: the number of a past, times `size`, and an id
    sums: NDArray[np.float64]  # (G, TALLIED)
    which: NDArray[np.int64]  # (B,) the past of each learner
    size: int

    @classmethod
    def of(cls, tallies: Sequence[Tally], which: NDArray[np.int64], size: int) -> _Seeds:
        past = np.repeat(np.arange(len(tallies)), [len(one.ids) for one in tallies])
        ids = np.concatenate([one.ids for one in tallies])
        return cls(past * size + ids, np.concatenate([one.sums for one in tallies]), which, size)

    def found(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where groups stand among them, and whether they do; a negative key never does."""
        learner, ids = np.divmod(keys, self.size)
        own = np.where(keys < 0, -1, self.which[learner.clip(min=0)] * self.size + ids)
        if not len(self.keys):
            return own, np.zeros(len(own), np.bool_)
        at = np.searchsorted(self.keys, own).clip(max=len(self.keys) - 1)
        return at, self.keys[at] == own

    def seeded(self, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """What was counted of these groups, (M, TALLIED)."""
        seeds = np.tile(np.array(NOTHING), (len(keys), 1))
        at, same = self.found(keys)
        seeds[same] = self.sums[at[same]]
        return seeds


def _features(
    answers: Answers,
    tags: NDArray[np.float64],  # (S, PAST)
    by_item: NDArray[np.float64],  # (N, PAST)
    overall: NDArray[np.float64],  # (N, PAST)
    skills: NDArray[np.float64],  # (N,) how many were met before
) -> NDArray[np.float32]:
    features = np.empty((len(answers.items), len(COLUMNS)), np.float32)
    features[:, : len(PAST)] = _per_answer(answers, tags)
    features[:, : len(PAST)] /= np.maximum(answers.skill_counts, 1)[:, None]
    features[:, ITEM_COLUMNS] = by_item
    features[:, ITEM_COLUMNS.stop : -1] = overall[:, :-1]
    features[:, -1] = np.log1p(skills)
    return features


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


def _last_of_each(
    every: Answers,
    key: NDArray[np.int64],
    owner: NDArray[np.int64],
    known: int,
    seeds: _Seeds,
) -> NDArray[np.float64]:
    """`_past` of the entries from `known` on, of which none is a past of another."""
    _, first, again = np.unique(key[known:], return_index=True, return_inverse=True)
    kept = np.concatenate([np.arange(known), known + first])
    past, _ = _past(every, key[kept], owner[kept], seeds)
    last: NDArray[np.float64] = past[known:][again]
    return last


def _past(
    answers: Answers,
    key: NDArray[np.int64],
    owner: NDArray[np.int64],
    seeds: _Seeds | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Features of the earlier entries with the same key, (M, PAST), and whether there are none.

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
    groups = np.cumsum(fresh) - 1
    first_keys = key[fresh]
    begun = (
        np.tile(np.array(NOTHING), (len(first_keys), 1))
        if seeds is None
        else seeds.seeded(first_keys)
    )
    given, wins_then, fast, slow, last_then, hours, step, _ = begun[groups].T
    wins = wins_then + _sum_before(correct, start)
    last = np.where(fresh, last_then, 2.0 * np.roll(correct, 1) - 1.0)
    sorted_past = np.stack(
        [
            np.log1p(wins),
            np.log1p(np.maximum(given + rank - wins, 0.0)),
            _decayed(np.where(fresh, fast, last), rank, given + rank, FAST),
            _decayed(np.where(fresh, slow, last), rank, given + rank, SLOW),
            last,
            _since(answers.times[owner] / 3600.0, fresh, hours),
            _since(answers.step[owner].astype(np.float64), fresh, step),
        ],
        axis=1,
    )
    past, first = np.empty_like(sorted_past), np.empty_like(fresh)
    past[order], first[order] = sorted_past, fresh
    return past, first


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
    clock: NDArray[np.float64], fresh: NDArray[np.bool_], then: NDArray[np.float64]
) -> NDArray[np.float64]:
    """log1p of what passed since the previous entry; 0 where there is none, or no clock.

    Before the first entry of a group it was `then`.
    """
    passed = clock - np.where(fresh, then, np.roll(clock, 1))
    # fmax prefers a number to NaN, and so an unknown time counts as none passed.
    return np.log1p(np.fmax(passed, 0.0))


def _per_answer(answers: Answers, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum what is per skill over each answer's set; 0 for an empty set."""
    sums = np.zeros((len(answers.items), values.shape[1]))
    some = answers.skill_counts > 0
    if some.any():
        starts = np.cumsum(answers.skill_counts) - answers.skill_counts
        sums[some] = np.add.reduceat(values, starts[some], axis=0)
    return sums
