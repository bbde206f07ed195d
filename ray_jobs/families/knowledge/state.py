"""`v1/state`: a learner as one token, which later requests bring instead of the history.

The client keeps it, the service keeps nothing: what the model carries of the answers told so
far, and those that it must be told again. To go on from there costs what new answers cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.families.knowledge.asking import PAST, Past, Request
from ray_jobs.families.knowledge.batch import KEEPING, Carried, Kept, between, counted
from ray_jobs.families.knowledge.remembered import Remembered
from ray_jobs.families.knowledge.told import reader
from ray_jobs.families.knowledge.vocabulary import UNSEEN, Vocabulary
from ray_jobs.verb import Verb


class StateRequest(Request):
    """Remember these answers, and those of the state that they come after."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"history": PAST}]})


class StateResponse(BaseModel):
    """What stands for all answers so far, in place of a history."""

    state: str = Field(description="send it as `state` with the answers that follow")
    answers: int = Field(description="how many it stands for")


def cost(request: StateRequest) -> int:
    return KEEPING + request.told


def examples(request: StateRequest, vocabulary: Vocabulary) -> list[Kept]:
    past = Past.of(request, vocabulary)
    return [Kept(past.history, past.carried)]


def answer(
    request: StateRequest, outcomes: Sequence[NDArray[np.float32]], vocabulary: Vocabulary
) -> dict[str, Any]:
    """The state as bytes, for the service to seal."""
    past, (kept,) = Past.of(request, vocabulary), outcomes
    many, end = int(kept[0]), len(past.items)
    before = between(past.history, 0, many)
    carried = Carried(counted(before, past.carried), kept[1:]) if many else past.carried
    rest = between(past.history, many, end)
    practised = counted(rest, carried).skills.ids.tolist()
    names = tuple("" if one == UNSEEN else vocabulary.skills[one - 2] for one in practised)
    remembered = Remembered(carried, rest, names)
    return {"state": remembered.encoded(), "answers": remembered.tallies.steps}


VERB = Verb(
    StateRequest,
    StateResponse,
    cost,
    examples,
    answer,
    remembers=True,
    read=reader(StateRequest),
    keeps=True,
)
