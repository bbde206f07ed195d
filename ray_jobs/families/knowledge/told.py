"""A learner's answers as a client tells them, kept in columns.

A request may tell thousands of answers, and a pydantic object for each costs several times
what predicting from them does. Those that are as nearly all are become plain structs;
whatever else there is goes through pydantic's models, which alone say what is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

from msgspec import (
    UNSET,
    Meta,
    MsgspecError,
    Struct,
    UnsetType,
    ValidationError,
    convert,
    defstruct,
)
from msgspec.json import Decoder
from msgspec.structs import astuple
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ray_jobs.families.knowledge.table import LONGEST_NAME, MOST_SKILLS

MAX_ANSWERS = 20_000


class Strict(BaseModel):
    """An unknown field is a misspelt one, and refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


Skill = Annotated[str, Field(max_length=LONGEST_NAME)]


class Candidate(Strict):
    """An item that could be put to the learner next."""

    item: str = Field(min_length=1, max_length=LONGEST_NAME, examples=["fractions-017"])
    skills: list[Skill] = Field(default=[], max_length=MOST_SKILLS, examples=[["fractions"]])


class Answer(Candidate):
    """An answer that the learner gave."""

    correct: float = Field(ge=0, le=1, description="1 right, 0 wrong, between: partial credit")
    time: float | None = Field(default=None, ge=0, description="unix seconds")


class Plain(Struct, forbid_unknown_fields=True, gc=False):
    """An `Answer` each field of which is of its own type: what this takes, that takes as well."""

    item: Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
    correct: Annotated[float, Meta(ge=0, le=1)]
    skills: Annotated[
        tuple[Annotated[str, Meta(max_length=LONGEST_NAME)], ...], Meta(max_length=MOST_SKILLS)
    ] = ()
    time: Annotated[float, Meta(ge=0, le=sys.float_info.max)] | None = None


columns = attrgetter("item", "skills", "correct", "time")


@dataclass(frozen=True)
class AnswerList:
    """T answers, in the order in which they were told; for pydantic a list of `Answer`."""

    items: Sequence[str] = ()  # (T,)
    skills: Sequence[Sequence[str]] = ()  # (T,) of each answer
    correct: Sequence[float] = ()  # (T,) 0..1
    times: Sequence[float | None] = ()  # (T,) unix seconds, where known

    def __len__(self) -> int:
        return len(self.items)

    @property
    def known_times(self) -> list[float]:
        """Those that were told, in their order."""
        return [time for time in self.times if time is not None]

    @classmethod
    def of(cls, answers: Sequence[Answer] | Sequence[Plain]) -> AnswerList:
        """The columns of some answers."""
        return cls(*zip(*map(columns, answers), strict=True))

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        some = Annotated[list[Answer], Field(max_length=MAX_ANSWERS)]
        return core_schema.no_info_wrap_validator_function(
            lambda value, validated: cls.of(_plain(value) or validated(value)),
            handler.generate_schema(some),
        )


def _plain(value: Any) -> list[Plain]:
    """Answers that are as they should be; none where pydantic is to look at them."""
    if not isinstance(value, list) or len(value) > MAX_ANSWERS:
        return []
    if value and isinstance(value[0], Plain):
        return value  # as `reader` makes them
    try:
        return convert(value, list[Plain])
    except ValidationError:
        return []


def reader(request: type[BaseModel]) -> Callable[[bytes], Any]:
    """What reads a body of one such request, or of `instances`, with histories as `Plain` at once.

    Its values are those of the JSON; it gives None where an answer is not plain, or anything
    is not as usual, so that the body is read again and looked at.
    """
    answers = Annotated[list[Plain], Meta(max_length=MAX_ANSWERS)] | UnsetType
    own = [(name, answers if name == "history" else Any, UNSET) for name in request.model_fields]
    one: Any = defstruct("One", own, forbid_unknown_fields=True, gc=False)
    instances = ("instances", list[one] | UnsetType, UNSET)
    decoder = Decoder(defstruct("Body", [*own, instances], forbid_unknown_fields=True))

    def read(data: bytes) -> Any:
        try:
            values = _given(decoder.decode(data))
        except (MsgspecError, RecursionError, UnicodeError):
            return None
        if "instances" in values:
            values["instances"] = list(map(_given, values["instances"]))
        return values

    return read


def _given(told: Struct) -> dict[str, Any]:
    """The fields that were told."""
    values = zip(told.__struct_fields__, astuple(told), strict=True)
    return {name: value for name, value in values if value is not UNSET}
