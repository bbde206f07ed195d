"""What clients say and hear: histories and candidates in, probabilities and mastery out.

A verb is one POST route `v1/<verb>`: its request and response models, how a
request becomes examples, and how predictions become an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.families.knowledge.batch import History
from ray_jobs.families.knowledge.frame import COLUMNS, example, frame
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.verb import Verb

__all__ = ["COLUMNS", "VERBS", "example", "frame", "golden"]

MAX_ANSWERS = 20_000
MAX_CANDIDATES = 1_000


class Strict(BaseModel):
    """An unknown field is a misspelt one, and refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Candidate(Strict):
    """An item that could be put to the learner next."""

    item: str = Field(min_length=1, max_length=512, examples=["fractions-017"])
    skills: list[str] = Field(default=[], max_length=64, examples=[["fractions"]])


class Answer(Candidate):
    """An answer that the learner gave."""

    correct: float = Field(ge=0, le=1, description="1 right, 0 wrong, between: partial credit")
    time: float | None = Field(default=None, ge=0, description="unix seconds")


class Request(Strict):
    """A learner's past answers, oldest first; empty for somebody never seen before."""

    learner: str | None = Field(default=None, max_length=512)
    history: list[Answer] = Field(default=[], max_length=MAX_ANSWERS)


class PredictRequest(Request):
    """How likely is each candidate to be answered correctly, were it asked now?"""

    candidates: list[Candidate] = Field(min_length=1, max_length=MAX_CANDIDATES)


class Prediction(BaseModel):
    item: str
    probability: float = Field(description="that the answer would be correct")


class PredictResponse(BaseModel):
    """One prediction per candidate, in their order."""

    predictions: list[Prediction]


class MasteryRequest(Request):
    """How well is each skill mastered now? Without `skills`: those of the history."""

    skills: list[str] | None = Field(default=None, min_length=1, max_length=MAX_CANDIDATES)


class Mastery(BaseModel):
    skill: str
    level: float = Field(description="probability of answering a typical item of it correctly")
    answers: int = Field(description="answers of the history that practised it")


class MasteryResponse(BaseModel):
    """One level per skill."""

    mastery: list[Mastery]


def encoded(
    history: Sequence[Answer], candidates: Sequence[Candidate], vocabulary: Vocabulary
) -> list[History]:
    """One example per candidate: the history as context, the candidate as what is asked."""
    past = [(vocabulary.item(a.item), vocabulary.skill_set(a.skills)) for a in history]
    correct = np.array([*(a.correct for a in history), 0.0], np.float32)
    scored = np.zeros(len(correct), np.bool_)
    scored[-1] = True
    times = np.array([*(np.nan if a.time is None else a.time for a in history), np.nan])
    examples = []
    for candidate in candidates:
        steps = [*past, (vocabulary.item(candidate.item), vocabulary.skill_set(candidate.skills))]
        examples.append(
            History(
                items=np.array([item for item, _ in steps], np.int64),
                skills=np.array([s for _, skills in steps for s in skills], np.int64),
                skill_counts=np.array([len(skills) for _, skills in steps], np.int64),
                correct=correct,
                scored=scored,
                times=times,
            )
        )
    return examples


def predict_examples(request: PredictRequest, vocabulary: Vocabulary) -> list[History]:
    return encoded(request.history, request.candidates, vocabulary)


def predict_answer(
    request: PredictRequest, outcomes: Sequence[NDArray[np.float32]], vocabulary: Vocabulary
) -> dict[str, Any]:
    return {
        "predictions": [
            {"item": c.item, "probability": round(float(p[0]), 6)}
            for c, p in zip(request.candidates, outcomes, strict=True)
        ]
    }


def asked_skills(request: MasteryRequest) -> list[str]:
    """The skills a mastery request is about, in order of first practice."""
    if request.skills is not None:
        return request.skills
    return list(dict.fromkeys(s for answer in request.history for s in answer.skills))


def mastery_examples(request: MasteryRequest, vocabulary: Vocabulary) -> list[History]:
    # An item nobody has seen stands for a typical one: only its skill is known.
    typical = [Candidate(item="\x00", skills=[skill]) for skill in asked_skills(request)]
    return encoded(request.history, typical, vocabulary)


def mastery_answer(
    request: MasteryRequest, outcomes: Sequence[NDArray[np.float32]], vocabulary: Vocabulary
) -> dict[str, Any]:
    counts = {s: sum(s in a.skills for a in request.history) for s in asked_skills(request)}
    levels = zip(counts.items(), outcomes, strict=True)
    return {
        "mastery": [
            {"skill": s, "level": round(float(p[0]), 6), "answers": n} for (s, n), p in levels
        ]
    }


VERBS = {
    "predict": Verb(PredictRequest, PredictResponse, predict_examples, predict_answer),
    "mastery": Verb(MasteryRequest, MasteryResponse, mastery_examples, mastery_answer),
}


def golden(table: pl.DataFrame, count: int = 4) -> list[dict[str, Any]]:
    """A few predict requests out of a clean table: short, long, and somebody new."""
    lengths = table.group_by("learner", maintain_order=True).len().sort("len", maintain_order=True)
    places = np.linspace(0, len(lengths) - 1, count - 1).astype(int)
    learners = [lengths["learner"][int(i)] for i in places]
    requests = [_request(table.filter(pl.col("learner") == name).head(200)) for name in learners]
    return [{"history": [], "candidates": requests[0]["candidates"]}, *requests]


def _request(answers: pl.DataFrame) -> dict[str, Any]:
    rows = answers.select("item", "skills", "correct", "time").to_dicts()
    last = rows.pop()
    return {
        "history": [{k: v for k, v in row.items() if v is not None} for row in rows],
        "candidates": [{"item": last["item"], "skills": last["skills"]}],
    }
