"""`v1/next`: what is worth practising now, with reasons.

An item is worth as much as it is expected to raise the mastery of its skills,
the more so while it is neither too hard nor too easy (the zone of proximal
development, Vygotsky 1978; around 85 % right learning is fastest, Wilson et al.
2019) and while its skills are not practised by the items recommended before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ray_jobs.families.knowledge.asking import PAST, Past, Request, questions, typical
from ray_jobs.families.knowledge.batch import Asked
from ray_jobs.families.knowledge.told import Candidate, reader
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.verb import Verb

MOST = 200  # candidates of a request
OUTSIDE = 0.1  # beyond the zone by this much, an item is worth 1 / e of what it was
AGAIN = 0.5  # of its worth is left to a skill for each item recommended before that practises it
CURIOSITY = 0.01  # worth of an item that is expected to raise nothing


class NextRequest(Request):
    """Which of the candidates are worth practising now?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "history": PAST,
                    "candidates": [
                        {"item": "fractions-017", "skills": ["fractions"]},
                        {"item": "decimals-004", "skills": ["decimals"]},
                    ],
                }
            ]
        }
    )

    candidates: list[Candidate] = Field(min_length=1, max_length=MOST)
    count: int = Field(default=5, ge=1, le=MOST, description="how many to recommend at most")
    zone: tuple[float, float] = Field(
        default=(0.5, 0.85), description="lowest and highest probability that is worth practising"
    )

    @field_validator("zone")
    @classmethod
    def in_order(cls, zone: tuple[float, float]) -> tuple[float, float]:
        """Refuse a zone in which nothing lies."""
        lowest, highest = zone
        if not 0 <= lowest < highest <= 1:
            raise ValueError(f"{lowest:g} to {highest:g}; expected 0 <= lowest < highest <= 1")
        return zone


class Recommendation(BaseModel):
    item: str
    probability: float = Field(description="that the answer would be correct")
    gain: float = Field(description="expected rise of the mastery of its skills, summed")
    reasons: list[str] = Field(description="why it is recommended, and at this place")


class NextResponse(BaseModel):
    """The best first; what follows takes into account what went before."""

    recommendations: list[Recommendation]


def examples(request: NextRequest, vocabulary: Vocabulary) -> list[Asked]:
    """All candidates and skills now; then each one's skills after a right and a wrong answer."""
    past, asked = Past.of(request, vocabulary), questions(request.candidates, vocabulary)
    now = [typical(skill, vocabulary) for skill in _skills(request)]
    after = [
        past.then(question, correct).asked([typical(name, vocabulary) for name in _names(one)])
        for one, question in zip(request.candidates, asked, strict=True)
        for correct in (1.0, 0.0)
    ]
    return [past.asked([*asked, *now]), *after]


def cost(request: NextRequest) -> int:
    answers = request.told
    after = sum(2 * (answers + 1 + len(_names(candidate))) for candidate in request.candidates)
    return answers + len(request.candidates) + len(_skills(request)) + after


def answer(
    request: NextRequest, outcomes: Sequence[NDArray[np.float32]], _vocabulary: Vocabulary
) -> dict[str, Any]:
    left = _options(request, outcomes)
    covered: dict[str, int] = {}
    picked: list[dict[str, Any]] = []
    while left and len(picked) < request.count:
        best = max(left, key=lambda option: _worth(option, covered, request.zone))
        left.remove(best)
        picked.append(_recommended(best, covered, request.zone))
        for skill in best.gains:
            covered[skill] = covered.get(skill, 0) + 1
    return {"recommendations": picked}


@dataclass(frozen=True)
class _Option:
    """A candidate, and what the model says of it."""

    item: str
    chance: float
    gains: dict[str, float]  # by skill: how much its mastery is expected to rise
    levels: dict[str, float]  # by skill: its mastery now

    @property
    def gain(self) -> float:
        return sum(self.gains.values())


def _options(request: NextRequest, outcomes: Sequence[NDArray[np.float32]]) -> list[_Option]:
    candidates = request.candidates
    now, *after = (outcome.tolist() for outcome in outcomes)
    levels = dict(zip(_skills(request), now[len(candidates) :], strict=True))
    options = []
    for candidate, chance, right, wrong in zip(
        candidates, now[: len(candidates)], after[::2], after[1::2], strict=True
    ):
        names = _names(candidate)
        gains = {
            name: chance * up + (1.0 - chance) * down - levels[name]
            for name, up, down in zip(names, right, wrong, strict=True)
        }
        options.append(_Option(candidate.item, chance, gains, levels))
    return options


def _worth(option: _Option, covered: dict[str, int], zone: tuple[float, float]) -> float:
    """Expected rise of mastery, less for what is too hard, too easy or covered already."""
    again = [AGAIN ** covered.get(skill, 0) for skill in option.gains]
    rise = sum(max(g, 0.0) * a for g, a in zip(option.gains.values(), again, strict=True))
    curiosity = CURIOSITY * max(again, default=1.0)
    return (rise + curiosity) * float(np.exp(-_outside(option.chance, zone) / OUTSIDE))


def _outside(chance: float, zone: tuple[float, float]) -> float:
    """How far a probability is from the zone; 0 within."""
    return max(zone[0] - chance, chance - zone[1], 0.0)


def _recommended(
    option: _Option, covered: dict[str, int], zone: tuple[float, float]
) -> dict[str, Any]:
    return {
        "item": option.item,
        "probability": round(option.chance, 6),
        "gain": round(option.gain, 6),
        "reasons": [*_of_zone(option.chance, zone), *_of_skills(option, covered)],
    }


def _of_zone(chance: float, zone: tuple[float, float]) -> list[str]:
    where = f"{zone[0]:g} to {zone[1]:g}"
    if chance < zone[0]:
        return [f"harder than asked for: {chance:.2f} to be right, the zone is {where}"]
    if chance > zone[1]:
        return [f"easier than asked for: {chance:.2f} to be right, the zone is {where}"]
    return [f"neither too hard nor too easy: {chance:.2f} to be right, the zone is {where}"]


def _of_skills(option: _Option, covered: dict[str, int]) -> list[str]:
    told = [
        f"{skill} is expected to rise from {option.levels[skill]:.2f} by {gain:.3f}"
        for skill, gain in sorted(option.gains.items(), key=lambda pair: -pair[1])
        if gain > 0 and skill
    ]
    fresh = [skill for skill in option.gains if skill and skill not in covered]
    if covered and fresh:
        told.append(f"nothing before it practises {', '.join(fresh)}")
    return told


def _names(candidate: Candidate) -> list[str]:
    """Its skills, each once; of a candidate that names none, the one without a name."""
    return list(dict.fromkeys(candidate.skills)) or [""]


def _skills(request: NextRequest) -> list[str]:
    return list(dict.fromkeys(name for c in request.candidates for name in _names(c)))


VERB = Verb(
    NextRequest, NextResponse, cost, examples, answer, remembers=True, read=reader(NextRequest)
)
