"""What must be known of a learner's answers to count on without them: running sums by group.

A group is a skill, an item, or all answers. `counts` makes features of what is counted here
and of the answers since, as if they had all been told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_jobs.families.knowledge.answers import Answers
from ray_jobs.families.knowledge.vocabulary import UNSEEN

FAST, SLOW = 0.6, 0.9  # how much of an answer's weight is left at the next one of its group
# What must be known of a group of answers to count on: how many and how many right, decayed
# sums of results (-1..1), the last result, when it was (hours) and which answer of the learner;
# and, of those whose time is known, when the last one was.
TALLIED = ("given", "wins", "fast", "slow", "last", "hours", "step", "latest")
NOTHING = (0.0, 0.0, 0.0, 0.0, 0.0, np.nan, np.nan, np.nan)


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


@dataclass(frozen=True)
class Seeds:
    """What was counted of groups before their first entry, under keys of K learners' pasts."""

    keys: NDArray[np.int64]  # (G,) ascending: the number of a past, times `size`, and an id
    sums: NDArray[np.float64]  # (G, TALLIED)
    which: NDArray[np.int64]  # (B,) the past of each learner
    size: int

    @classmethod
    def of(cls, tallies: Sequence[Tally], which: NDArray[np.int64], size: int) -> Seeds:
        past = np.repeat(np.arange(len(tallies)), [len(one.ids) for one in tallies])
        ids = np.concatenate([one.ids for one in tallies])
        return cls(past * size + ids, np.concatenate([one.sums for one in tallies]), which, size)

    def found(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where groups stand among them, and whether they do; a negative key never does."""
        if not len(self.keys):
            return keys, np.zeros(len(keys), np.bool_)
        learner, ids = np.divmod(keys, self.size)
        own = np.where(keys < 0, -1, self.which[learner.clip(min=0)] * self.size + ids)
        at = np.searchsorted(self.keys, own).clip(max=len(self.keys) - 1)
        return at, self.keys[at] == own

    def seeded(self, keys: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """What was counted of these groups, (M, TALLIED); None where nothing was of any."""
        if not len(self.keys):
            return None
        seeds = np.tile(np.array(NOTHING), (len(keys), 1))
        at, same = self.found(keys)
        seeds[same] = self.sums[at[same]]
        return seeds
