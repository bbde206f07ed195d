"""`v1/mastery`: how well is each skill mastered, how surely, which way it goes, by what evidence.

What one more answer would change tells how little is known. Let a typical item of a skill be
answered right with the chance c that nobody knows: then c's mean given the past is the level p,
after a right answer it is E(c²) / p, after a wrong one E(c - c²) / (1 - p), and so the variance
of c is p (1 - p) times the difference of these two: both are asked of the model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.artifact import Artifact
from ray_jobs.families.knowledge import batch
from ray_jobs.families.knowledge.asking import (
    MAX_CANDIDATES,
    PAST,
    Past,
    Request,
    typical,
)
from ray_jobs.families.knowledge.batch import Asked, History
from ray_jobs.families.knowledge.remembered import Practised
from ray_jobs.families.knowledge.told import Skill, reader
from ray_jobs.families.knowledge.vocabulary import UNSEEN, Vocabulary
from ray_jobs.predictor import predict
from ray_jobs.verb import Verb

RECENT = 5  # answers over which a trend is told
DEVIATIONS = 1.96  # that a normal value keeps to in 95 of 100 cases


class MasteryRequest(Request):
    """How well is each skill mastered now? Without `skills`: all that were practised."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"history": PAST}]})

    skills: list[Skill] | None = Field(default=None, min_length=1, max_length=MAX_CANDIDATES)
    intervals: bool = Field(
        default=False, description="tell how sure each level is; the history is read twice a skill"
    )

    @property
    def asked(self) -> list[str]:
        """The skills it is about, each once; by default what is remembered first."""
        if self.skills is not None:
            return list(dict.fromkeys(self.skills))
        before = [] if self.state is None else list(self.state.skills)
        return list(dict.fromkeys(chain(before, *self.history.skills)))

    @property
    def practice(self) -> dict[str, list[int]]:
        """Which answers of the history practised each skill, oldest first."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, skills in enumerate(self.history.skills):
            for skill in dict.fromkeys(skills):
                found[skill].append(number)
        return found

    @property
    def remembered(self) -> dict[str, Practised]:
        """What the state remembers of each skill."""
        return {} if self.state is None else self.state.skills

    @property
    def turns(self) -> dict[str, int]:
        """The answer since which the trend of a skill is told, of those practised."""
        practice = self.practice
        return {skill: practice[skill][-RECENT:][0] for skill in self.asked if skill in practice}


class Range(BaseModel):
    low: float
    high: float


class Mastery(BaseModel):
    skill: str
    level: float = Field(description="probability of answering a typical item of it correctly")
    interval: Range | None = Field(
        description="where the level lies in 95 of 100 cases, by the model's own reckoning; null "
        "where one more answer would change nothing, or where intervals were not asked for"
    )
    trend: float | None = Field(
        description=f"by how much the level rose since before the last {RECENT} answers of the "
        "history that practised it; null where none did"
    )
    answers: int = Field(description="answers that practised it")
    correct: float = Field(description="of them right; partial credit counts in part")
    last: float | None = Field(description="unix seconds of the last of them, where known")


class MasteryResponse(BaseModel):
    """One level per skill."""

    mastery: list[Mastery]


def examples(request: MasteryRequest, vocabulary: Vocabulary) -> list[Asked]:
    """Typical questions about all skills now; of each that was practised, one as of then.

    Where intervals are asked for, then one after a right and after a wrong answer to each.
    """
    if not request.asked:
        return []
    past = Past.of(request, vocabulary)
    before = [
        past.until(turn).asked([typical(skill, vocabulary)])
        for skill, turn in request.turns.items()
    ]
    skills = [typical(skill, vocabulary) for skill in request.asked]
    after = [
        past.then(skill, correct).asked([skill])
        for skill in (skills if request.intervals else ())
        for correct in (1.0, 0.0)
    ]
    return [past.asked(skills), *before, *after]


def cost(request: MasteryRequest) -> int:
    if not request.asked:
        return 0
    again = request.told - len(request.history)
    before = sum(again + turn + 1 for turn in request.turns.values())
    after = 2 * len(request.asked) * (request.told + 2) if request.intervals else 0
    return request.told + len(request.asked) + before + after


def answer(
    request: MasteryRequest, outcomes: Sequence[NDArray[np.float32]], _vocabulary: Vocabulary
) -> dict[str, Any]:
    now, *others = outcomes or [np.empty(0, np.float32)]
    then, after = others[: len(request.turns)], others[len(request.turns) :]
    levels = dict(zip(request.asked, now.tolist(), strict=True))
    before = {skill: float(told[0]) for skill, told in zip(request.turns, then, strict=True)}
    # Of no skill, or of every one.
    ranges = {
        skill: interval(levels[skill], float(right[0]), float(wrong[0]))
        for skill, right, wrong in zip(levels, after[::2], after[1::2], strict=False)
    }
    practice = request.practice
    return {
        "mastery": [
            {
                "skill": skill,
                "level": round(level, 6),
                "interval": ranges.get(skill),
                "trend": round(level - before[skill], 6) if skill in before else None,
                **_evidence(request, skill, practice.get(skill, ())),
            }
            for skill, level in levels.items()
        ]
    }


def interval(level: float, right: float, wrong: float) -> dict[str, float] | None:
    """Where a level lies, by what it would be after a right and after a wrong answer.

    Normal in logits, so that it keeps between 0 and 1.
    """
    if not right > wrong or not 0 < level < 1:
        return None
    # By the delta method: the variance over the square of p (1 - p).
    deviation = math.sqrt((right - wrong) / (level * (1 - level)))
    middle = math.log(level / (1 - level))
    bounds = (middle - DEVIATIONS * deviation, middle + DEVIATIONS * deviation)
    # The hyperbolic tangent is the logistic function without its overflow.
    low, high = (round(0.5 + 0.5 * math.tanh(bound / 2), 6) for bound in bounds)
    return {"low": low, "high": high}


def _evidence(request: MasteryRequest, skill: str, given: Sequence[int]) -> dict[str, Any]:
    before, history = request.remembered.get(skill), request.history
    times = [time for number in given if (time := history.times[number]) is not None]
    correct = sum(history.correct[number] for number in given)
    if before is not None:
        times += [before.last] if before.last is not None else []
        correct += before.correct
    return {
        "answers": len(given) + (before.answers if before else 0),
        "correct": round(correct, 6),
        "last": max(times, default=None),
    }


def table(model: Artifact, rows: pl.DataFrame) -> pl.DataFrame:
    """Each learner of a clean table in each skill practised, after the last answer.

    Columns learner, skill, level, answers, correct and last, as the verb tells them.
    """
    practised = _practised(rows)
    ids = practised["skill"].replace_strict(
        model.vocabulary.skill_ids, default=UNSEEN, return_dtype=pl.Int64
    )
    sizes = dict(practised["learner"].value_counts().iter_rows())
    learners = rows["learner"].unique(maintain_order=True)
    histories = batch.examples(rows, model.vocabulary)
    asked, start = [], 0
    for learner, history in zip(learners, histories, strict=True):
        end = start + sizes.get(learner, 0)
        if end > start:
            asked.append(_of_skills(history, ids[start:end].to_numpy()))
        start = end
    levels = np.concatenate([np.empty(0, np.float32), *predict(model, asked)])
    return practised.insert_column(2, pl.Series("level", levels))


def _practised(rows: pl.DataFrame) -> pl.DataFrame:
    """Learners in their order, each with the skills practised, and how often and how well."""
    return (
        rows.select("learner", skill="skills", correct="correct", time="time")
        .explode("skill")
        .drop_nulls("skill")
        .group_by("learner", "skill", maintain_order=True)
        .agg(answers=pl.len(), correct=pl.col("correct").sum(), last=pl.col("time").max())
    )


def _of_skills(history: History, skills: NDArray[np.int64]) -> Asked:
    unseen, one = np.full(len(skills), UNSEEN), np.ones(len(skills), np.int64)
    return Asked(history, items=unseen, skills=skills, skill_counts=one, now=np.nan)


VERB = Verb(
    MasteryRequest,
    MasteryResponse,
    cost,
    examples,
    answer,
    remembers=True,
    read=reader(MasteryRequest),
)
