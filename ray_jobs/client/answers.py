"""What a service answers, as records; a family's own fields by name, or by a model of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from ray_jobs.client.errors import Asked, InvalidRequest, UnexpectedAnswer


class Document(BaseModel):
    """What every answer tells of itself; further fields as `document["name"]`."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    version: str
    lineage: str  # digest of recipe, data, code and seed of the model
    request_id: str

    def __getitem__(self, name: str) -> Any:
        """A field by its name in the JSON; raises KeyError with the names there are."""
        fields = dict(self)
        if name not in fields:
            raise KeyError(f"{name!r} is not in the answer; there are {', '.join(fields)}")
        return fields[name]


class Answer(Document):
    """The answer to one request.

    A subclass that declares the fields of a verb reads them typed:
    `client.call("predict", {...}, answer=Predictions).predictions`.
    """

    prediction_id: str | None = None  # for feedback; None where nothing was predicted
    reasons: Sequence[Any] = ()  # where asked for with explain=True


class Card(Document):
    """The model card; its data, figures and schemas as `card["schema"]`."""

    service: str
    family: str
    digest: str


@dataclass(frozen=True)
class Feedback:
    """What really happened, for each prediction of an answer, in their order."""

    prediction_id: str | None  # as the answer has it
    outcomes: Sequence[float | str | None]  # None where nothing happened
    time_s: float | None = None  # unix seconds of the outcome; None: when it was predicted

    def as_json(self) -> dict[str, Any]:
        """It as the service reads it; raises InvalidRequest where nothing was predicted."""
        if self.prediction_id is None:
            raise InvalidRequest("this answer has no prediction_id; that of v1/predict has one")
        told: dict[str, Any] = {
            "prediction_id": self.prediction_id,
            "outcomes": list(self.outcomes),
        }
        return told if self.time_s is None else {**told, "time": self.time_s}


D = TypeVar("D", bound=Document)


def document(response: httpx.Response, asked: Asked) -> dict[str, Any]:
    """The JSON object of an answer; raises UnexpectedAnswer for anything else."""
    try:
        told = response.json()
    except ValueError as error:
        raise unexpected(asked, "the answer is not JSON") from error
    if not isinstance(told, dict):
        raise unexpected(asked, "the answer is not a JSON object")
    return told


def parsed(kind: type[D], told: Any, asked: Asked) -> D:
    """An answer as a record; raises UnexpectedAnswer that says where it is none."""
    try:
        return kind.model_validate({**told, "request_id": asked.request_id})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"/{part}" for part in first["loc"])
        what = f"the answer is no {kind.__name__}: {place}: {first['msg']}"
        raise unexpected(asked, what) from error


def unexpected(asked: Asked, what: str) -> UnexpectedAnswer:
    """An answer that is none."""
    advice = "check the URL, and the model of the answer if you gave one"
    return UnexpectedAnswer(asked.message(f"{what}; {advice}"), request_id=asked.request_id)
