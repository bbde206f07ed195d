"""What clients say and hear: histories in; probabilities, mastery and what to practise out.

A verb is one POST route `v1/<verb>`: its request and response models, how a
request becomes examples, and how predictions become an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.families import Api
from ray_jobs.families.knowledge import mastery, practice, reasons, state
from ray_jobs.families.knowledge.asking import (
    MAX_CANDIDATES,
    PAST,
    Past,
    Request,
    questions,
)
from ray_jobs.families.knowledge.batch import Asked
from ray_jobs.families.knowledge.frame import COLUMNS, SEPARATOR, example, frame
from ray_jobs.families.knowledge.told import Candidate, reader
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.target import Target
from ray_jobs.verb import Explanation, Logged, Verb


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


def predict_examples(request: PredictRequest, vocabulary: Vocabulary) -> list[Asked]:
    return [Past.of(request, vocabulary).asked(questions(request.candidates, vocabulary))]


def predict_answer(
    request: PredictRequest, outcomes: Sequence[NDArray[np.float32]], _vocabulary: Vocabulary
) -> dict[str, Any]:
    return {
        "predictions": [
            {"item": c.item, "probability": round(float(p), 6)}
            for c, p in zip(request.candidates, outcomes[0], strict=True)
        ]
    }


def _predict_cost(request: PredictRequest) -> int:
    return request.told + len(request.candidates)


def _logged(request: PredictRequest) -> Iterator[dict[str, Any]]:
    for one in request.candidates:
        yield {"item": one.item, "skills": SEPARATOR.join(one.skills)}


def _credit(outcome: float | str, _target: Target) -> float:
    if isinstance(outcome, str) or not 0 <= outcome <= 1:
        raise ValueError("expected 1 for right, 0 for wrong, or partial credit between")
    return outcome


VERBS = {
    "predict": Verb(
        PredictRequest,
        PredictResponse,
        _predict_cost,
        predict_examples,
        predict_answer,
        Explanation(reasons.cost, reasons.examples, reasons.reasons),
        remembers=True,
        read=reader(PredictRequest),
        logged=Logged(_logged, "correct", Target("binary"), _credit, "learner", "time"),
    ),
    "mastery": mastery.VERB,
    "next": practice.VERB,
    "state": state.VERB,
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
