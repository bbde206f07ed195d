"""Which past answers moved a prediction, and by how much: each is left out in turn.

The effect of an answer is the prediction less what it would be, had the answer
never been given (Cook and Weisberg 1982 of regression): exact for every
architecture, since the model itself is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.families.knowledge.asking import Past, questions
from ray_jobs.families.knowledge.batch import Asked
from ray_jobs.families.knowledge.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ray_jobs.families.knowledge.api import PredictRequest

LOOKED_AT = 100  # of the latest answers; those before them are context
TOLD = 10  # reasons of each candidate


def examples(request: PredictRequest, vocabulary: Vocabulary) -> list[Asked]:
    """All candidates, asked of the whole past, then of the past without each late answer."""
    past, asked = Past.of(request, vocabulary), questions(request.candidates, vocabulary)
    return [past.asked(asked), *(past.without(at).asked(asked) for at in _looked_at(request))]


def cost(request: PredictRequest) -> int:
    positions = request.told + len(request.candidates)
    return positions + len(_looked_at(request)) * (positions - 1)


def reasons(
    request: PredictRequest, outcomes: Sequence[NDArray[np.float32]], _vocabulary: Vocabulary
) -> list[dict[str, Any]]:
    """The answers that moved each candidate's probability most, candidate after candidate."""
    whole, *without = np.array(outcomes, np.float64)  # (1 + looked at, candidates)
    found = []
    for number in range(len(request.candidates)):
        effects = [
            (float(whole[number] - less[number]), at)
            for at, less in zip(_looked_at(request), without, strict=True)
        ]
        # Of answers that moved it alike the later one comes first.
        weightiest = sorted(effects, key=lambda pair: (-abs(pair[0]), -pair[1]))[:TOLD]
        found += [
            {
                "candidate": number,
                "answer": at,
                "item": request.history.items[at],
                "correct": request.history.correct[at],
                "effect": round(effect, 6),
            }
            for effect, at in weightiest
        ]
    return found


def _looked_at(request: PredictRequest) -> range:
    answers = len(request.history)
    return range(max(0, answers - LOOKED_AT), answers)
