"""What clients say and hear: histories and candidates in, probabilities and mastery out.

A verb is one POST route `v1/<verb>`: its request and response models, how a
request becomes examples, and how predictions become an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
)

from ray_jobs.families import Api
from ray_jobs.families.knowledge.batch import History
from ray_jobs.families.knowledge.frame import COLUMNS, example, frame
from ray_jobs.families.knowledge.table import LONGEST_NAME, MOST_SKILLS
from ray_jobs.families.knowledge.vocabulary import UNSEEN, Vocabulary
from ray_jobs.verb import Verb

MAX_ANSWERS = 20_000
MAX_CANDIDATES = 1_000

PAST: list[JsonValue] = [
    {"item": "fractions-016", "skills": ["fractions"], "correct": 0, "time": 1790000000},
    {"item": "fractions-016", "skills": ["fractions"], "correct": 1, "time": 1790000060},
]


class Strict(BaseModel):
    """An unknown field is a misspelt one, and refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Candidate(Strict):
    """An item that could be put to the learner next."""

    item: str = Field(min_length=1, max_length=LONGEST_NAME, examples=["fractions-017"])
    skills: list[str] = Field(default=[], max_length=MOST_SKILLS, examples=[["fractions"]])


class Answer(Candidate):
    """An answer that the learner gave."""

    correct: float = Field(ge=0, le=1, description="1 right, 0 wrong, between: partial credit")
    time: float | None = Field(default=None, ge=0, description="unix seconds")


class Request(Strict):
    """A learner's past answers, oldest first; empty for somebody never seen before."""

    learner: str | None = Field(default=None, max_length=512)
    history: list[Answer] = Field(default=[], max_length=MAX_ANSWERS)
    time: float | None = Field(
        default=None,
        ge=0,
        description="unix seconds of asking; without it, right after the last answer",
    )

    @field_validator("history")
    @classmethod
    def oldest_first(cls, history: list[Answer]) -> list[Answer]:
        """Refuse an order that would be taken for another past than the learner's."""
        latest = 0.0
        for number, answer in enumerate(history):
            if answer.time is not None:
                if answer.time < latest:
                    raise ValueError(
                        f"answer {number} is from before the one it follows; expected oldest first"
                    )
                latest = answer.time
        return history

    @field_validator("time")
    @classmethod
    def not_in_the_past(cls, time: float | None, info: ValidationInfo) -> float | None:
        """Refuse to ask before the last answer: forgetting would run backwards."""
        history: list[Answer] = info.data.get("history", [])
        last = max((a.time for a in history if a.time is not None), default=0.0)
        if time is not None and time < last:
            raise ValueError(f"{time:.0f} is before the last answer of the history ({last:.0f})")
        return time


class PredictRequest(Request):
    """How likely is each candidate to be answered correctly, were it asked now?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "history": PAST,
                    "candidates": [{"item": "fractions-017", "skills": ["fractions"]}],
                }
            ]
        }
    )

    candidates: list[Candidate] = Field(min_length=1, max_length=MAX_CANDIDATES)


class Prediction(BaseModel):
    item: str
    probability: float = Field(description="that the answer would be correct")


class PredictResponse(BaseModel):
    """One prediction per candidate, in their order."""

    predictions: list[Prediction]


class MasteryRequest(Request):
    """How well is each skill mastered now? Without `skills`: those of the history."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"history": PAST}]})

    skills: list[str] | None = Field(default=None, min_length=1, max_length=MAX_CANDIDATES)

    @property
    def asked(self) -> list[str]:
        """The skills it is about, each once; by default in order of first practice."""
        if self.skills is not None:
            return list(dict.fromkeys(self.skills))
        return list(dict.fromkeys(s for answer in self.history for s in answer.skills))


class Mastery(BaseModel):
    skill: str
    level: float = Field(description="probability of answering a typical item of it correctly")
    answers: int = Field(description="answers of the history that practised it")


class MasteryResponse(BaseModel):
    """One level per skill."""

    mastery: list[Mastery]


def encoded(
    request: Request, asked: Sequence[tuple[int, tuple[int, ...]]], vocabulary: Vocabulary
) -> list[History]:
    """One example per (item, skill set) asked: the history as context, the question last."""
    # The past is encoded once, however many candidates there are.
    history = request.history
    sets = [vocabulary.skill_set(answer.skills) for answer in history]
    items = np.array([*(vocabulary.item(answer.item) for answer in history), 0], np.int64)
    skills = np.array([skill for skills in sets for skill in skills], np.int64)
    counts = np.array([*(len(skills) for skills in sets), 0], np.int64)
    correct = np.array([*(answer.correct for answer in history), 0.0], np.float32)
    times = np.array([*(a.time for a in history), request.time], np.float64)  # None is NaN
    scored = np.zeros(len(items), np.bool_)
    scored[-1] = True
    return [
        History(
            items=_ending(items, item),
            skills=np.append(skills, np.array(of_item, np.int64)),
            skill_counts=_ending(counts, len(of_item)),
            correct=correct,
            scored=scored,
            times=times,
        )
        for item, of_item in asked
    ]


def predict_examples(request: PredictRequest, vocabulary: Vocabulary) -> list[History]:
    asked = [(vocabulary.item(c.item), vocabulary.skill_set(c.skills)) for c in request.candidates]
    return encoded(request, asked, vocabulary)


def predict_answer(
    request: PredictRequest, outcomes: Sequence[NDArray[np.float32]], _vocabulary: Vocabulary
) -> dict[str, Any]:
    return {
        "predictions": [
            {"item": c.item, "probability": round(float(p[0]), 6)}
            for c, p in zip(request.candidates, outcomes, strict=True)
        ]
    }


def mastery_examples(request: MasteryRequest, vocabulary: Vocabulary) -> list[History]:
    # An item nobody has seen stands for a typical one: only its skill is known.
    typical = [(UNSEEN, vocabulary.skill_set([skill])) for skill in request.asked]
    return encoded(request, typical, vocabulary)


def mastery_answer(
    request: MasteryRequest, outcomes: Sequence[NDArray[np.float32]], _vocabulary: Vocabulary
) -> dict[str, Any]:
    practised = Counter(s for answer in request.history for s in set(answer.skills))
    return {
        "mastery": [
            {"skill": skill, "level": round(float(p[0]), 6), "answers": practised[skill]}
            for skill, p in zip(request.asked, outcomes, strict=True)
        ]
    }


def _ending(values: NDArray[np.int64], last: int) -> NDArray[np.int64]:
    ended = values.copy()
    ended[-1] = last
    return ended


def _predict_cost(request: PredictRequest) -> int:
    return len(request.candidates) * (len(request.history) + 1)


def _mastery_cost(request: MasteryRequest) -> int:
    return len(request.asked) * (len(request.history) + 1)


VERBS = {
    "predict": Verb(
        PredictRequest, PredictResponse, _predict_cost, predict_examples, predict_answer
    ),
    "mastery": Verb(
        MasteryRequest, MasteryResponse, _mastery_cost, mastery_examples, mastery_answer
    ),
}


def golden(table: pl.DataFrame, _vocabulary: Vocabulary, count: int = 4) -> list[dict[str, Any]]:
    """A few predict requests out of a clean table: somebody new, a beginner, short and long."""
    lengths = table.group_by("learner", maintain_order=True).len().sort("len", maintain_order=True)
    places = np.linspace(0, len(lengths) - 1, count - 1).astype(int)
    learners = [lengths["learner"][int(i)] for i in places]
    answers = [table.filter(pl.col("learner") == name).head(200) for name in learners]
    beginner = _request(answers[-1].head(4))
    new = {"history": [], "candidates": beginner["candidates"]}
    return [new, beginner, *map(_request, answers)]


def _request(answers: pl.DataFrame) -> dict[str, Any]:
    rows = answers.select("item", "skills", "correct", "time").to_dicts()
    last = rows.pop()
    return {
        "history": [{k: v for k, v in row.items() if v is not None} for row in rows],
        "candidates": [{"item": last["item"], "skills": last["skills"]}],
    }


API = Api(
    verbs=lambda _: VERBS,
    columns=lambda _: COLUMNS,
    outputs=lambda _: ("probability",),
    frame=frame,
    example=example,
    golden=golden,
)
