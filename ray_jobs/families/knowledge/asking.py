"""What clients tell of a learner, and the past it becomes: encoded once, asked many times.

A past can be cut, be told without an answer, or with one more, which is how
reasons, trends and advice are found: each is the same question to another past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    JsonValue,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from ray_jobs.families.knowledge.batch import Asked, Carried, History
from ray_jobs.families.knowledge.remembered import Remembered
from ray_jobs.families.knowledge.told import AnswerList, Candidate, Strict
from ray_jobs.families.knowledge.vocabulary import UNSEEN, Vocabulary

ROUNDING_S = 0.001
ROUNDING = 1e-12  # of a time, relatively
TOKEN: dict[str, Any] = {"type": "string", "description": "given by v1/state of this version"}
MAX_CANDIDATES = 1_000

PAST: list[JsonValue] = [
    {"item": "fractions-016", "skills": ["fractions"], "correct": 0, "time": 1790000000},
    {"item": "fractions-016", "skills": ["fractions"], "correct": 1, "time": 1790000060},
]


def _remembered(value: Any) -> Remembered | None:
    """What a service has opened: bytes that it had sealed itself."""
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise ValueError(  # noqa: TRY004 - which pydantic tells the client of
            "expected a state that v1/state gave, as text"
        )
    return Remembered.decoded(value)


class Request(Strict):
    """A learner's past answers, oldest first; empty for somebody never seen before."""

    state: Annotated[Remembered | None, PlainValidator(_remembered), WithJsonSchema(TOKEN)] = Field(
        default=None,
        description="what v1/state gave for the answers before those of the history",
    )
    learner: str | None = Field(default=None, max_length=512)
    history: AnswerList = Field(default=AnswerList(), json_schema_extra={"default": []})
    time: float | None = Field(
        default=None,
        ge=0,
        description="unix seconds of asking; without it, right after the last answer",
    )

    @field_validator("history")
    @classmethod
    def oldest_first(cls, history: AnswerList, info: ValidationInfo) -> AnswerList:
        """Refuse an order that would be taken for another past than the learner's."""
        latest = begun = _latest(info)
        known = history.known_times
        if known == sorted(known) and (not known or known[0] >= begun):
            return history
        for number, time in enumerate(history.times):
            if time is not None:
                if time < latest:
                    whom = "the last one of the state" if latest == begun else "the one it follows"
                    raise ValueError(
                        f"answer {number} is from before {whom}; expected oldest first"
                    )
                latest = time
        return history

    @field_validator("time")
    @classmethod
    def not_in_the_past(cls, time: float | None, info: ValidationInfo) -> float | None:
        """Refuse to ask before the last answer: forgetting would run backwards."""
        told: list[float] = info.data.get("history", AnswerList()).known_times
        last = told[-1] if told else _latest(info)
        if time is not None and time < last:
            where = "history" if told else "state"
            raise ValueError(f"{time:.0f} is before the last answer of the {where} ({last:.0f})")
        return time

    @property
    def told(self) -> int:
        """How many answers are read: those of the history, and of the state that need it."""
        return len(self.history) + (0 if self.state is None else len(self.state.history.items))


def _latest(info: ValidationInfo) -> float:
    """Unix seconds of what is remembered last; 0 where nothing is."""
    state: Remembered | None = info.data.get("state")
    # An hour's number is rounded; a time that was sent must not lie before itself.
    latest = 0.0 if state is None else state.latest or 0.0
    return max(0.0, latest - max(ROUNDING_S, ROUNDING * latest))


Question = tuple[int, tuple[int, ...]]  # ids of an item and of its skills


def questions(candidates: Sequence[Candidate], vocabulary: Vocabulary) -> list[Question]:
    return [(vocabulary.item(one.item), vocabulary.skill_set(one.skills)) for one in candidates]


def typical(skill: str, vocabulary: Vocabulary) -> Question:
    """A question about a skill alone, or, where it has no name, about none."""
    # An item nobody has seen stands for a typical one: only its skill is known.
    return UNSEEN, vocabulary.skill_set([skill] if skill else [])


@dataclass(frozen=True)
class Past:
    """A learner's T answers as ids, and the moment of asking; S skills in all.

    An answer's number is its place in the request's history.
    """

    items: NDArray[np.int64]  # (T,)
    skills: NDArray[np.int64]  # (S,) sets laid end to end
    skill_counts: NDArray[np.int64]  # (T,)
    correct: NDArray[np.float32]  # (T,) 0..1
    times: NDArray[np.float64]  # (T,) unix seconds, NaN when unknown
    now: float  # unix seconds, NaN: right after the last answer
    carried: Carried | None  # of the answers before these
    again: int  # the first of these, which a state tells again: the history comes after them

    @classmethod
    def of(cls, request: Request, vocabulary: Vocabulary) -> Past:
        """The past that a request tells."""
        history, ids = request.history, vocabulary.item_ids
        sets = vocabulary.skill_sets(history.skills)
        told = cls(
            items=np.array([ids.get(item, UNSEEN) for item in history.items], np.int64),
            skills=np.array(list(chain.from_iterable(sets)), np.int64),
            skill_counts=np.array(list(map(len, sets)), np.int64),
            correct=np.array(history.correct, np.float32),
            times=np.array(history.times, np.float64),  # None is NaN
            now=np.nan if request.time is None else request.time,
            carried=None,
            again=0,
        )
        return told if request.state is None else told.after(request.state)

    def after(self, state: Remembered) -> Past:
        """The past that begins with what is remembered."""
        parts = ("items", "skills", "skill_counts", "correct", "times")
        both: dict[str, Any] = {
            name: np.concatenate([getattr(state.history, name), getattr(self, name)])
            for name in parts
        }
        return replace(self, **both, carried=state.carried, again=len(state.history.items))

    @property
    def history(self) -> History:
        """Its answers as what a model reads."""
        return History(
            items=self.items,
            skills=self.skills,
            skill_counts=self.skill_counts,
            correct=self.correct,
            scored=np.zeros(len(self.items), np.bool_),
            times=self.times,
        )

    def asked(self, questions: Sequence[Question]) -> Asked:
        """The past as context of questions, none of which knows of another."""
        return Asked(
            self.history,
            items=np.array([item for item, _ in questions], np.int64),
            skills=np.array([skill for _, skills in questions for skill in skills], np.int64),
            skill_counts=np.array([len(skills) for _, skills in questions], np.int64),
            now=self.now,
            carried=self.carried,
        )

    def then(self, question: Question, correct: float) -> Past:
        """The past after one more answer, given now."""
        item, skills = question
        return replace(
            self,
            items=np.append(self.items, item),
            skills=np.append(self.skills, np.array(skills, np.int64)),
            skill_counts=np.append(self.skill_counts, len(skills)),
            correct=np.append(self.correct, np.float32(correct)),
            times=np.append(self.times, self.now),
        )

    def without(self, answer: int) -> Past:
        """The past in which one answer was never given."""
        return self._chosen(np.arange(len(self.items)) != self.again + answer)

    def until(self, answer: int) -> Past:
        """The past as it was when that answer was to be given."""
        before = self._chosen(np.arange(len(self.items)) < self.again + answer)
        return replace(before, now=float(self.times[self.again + answer]))

    def _chosen(self, kept: NDArray[np.bool_]) -> Past:
        return replace(
            self,
            items=self.items[kept],
            skills=self.skills[np.repeat(kept, self.skill_counts)],
            skill_counts=self.skill_counts[kept],
            correct=self.correct[kept],
            times=self.times[kept],
        )
