"""What a family shows of itself: the verbs of its services, the columns of its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ray_jobs.target import Target


@dataclass(frozen=True)
class Column:
    """One column of a frame: its name, kind (`text`, `number` or `any`) and meaning."""

    name: str
    kind: str
    required: bool
    meaning: str


@dataclass(frozen=True)
class Explanation:
    """Why a request is answered so, by predicting variants of it."""

    cost: Callable[[Any], int]  # request -> positions its variants will take
    examples: Callable[[Any, Any], list[Any]]  # (request, vocabulary) -> its variants
    # (request, outcomes of the variants, vocabulary) -> reasons, the weightiest first
    reasons: Callable[[Any, Sequence[Any], Any], list[dict[str, Any]]]


@dataclass(frozen=True)
class Logged:
    """How what a verb predicts, and what became of it, stands in a log that can be ingested."""

    rows: Callable[[Any], Iterable[dict[str, Any]]]  # request -> what each prediction is about
    column: str  # of the outcome
    target: Target  # what this version predicts; without outcomes where clients tell a number
    # (outcome as a client tells it, the target of the version that predicted) -> as a log has it;
    # raises ValueError for none
    outcome: Callable[[float | str, Target], float | str]
    learner: str = ""  # column of whom it was about; empty: a log has none
    time: str = ""  # column of when, in unix seconds; empty: a log has none


@dataclass(frozen=True)
class Verb:
    """One POST route `v1/<verb>`: its request and response, and the way between through a model.

    The request's model states an example of itself, which the documentation
    shows; its docstring is the summary.
    """

    request: type[BaseModel]
    response: type[BaseModel]
    cost: Callable[[Any], int]  # request -> positions its examples will take, before they are made
    examples: Callable[[Any, Any], list[Any]]  # (request, vocabulary) -> what is predicted
    answer: Callable[[Any, Sequence[Any], Any], dict[str, Any]]  # (request, outcomes, vocabulary)
    explanation: Explanation | None = None  # what `?explain=true` adds
    remembers: bool = False  # a request may bring a `state`, which its model takes as bytes
    logged: Logged | None = None  # where feedback may tell what really happened
    # bytes of a body -> the JSON in it, as the request takes it; None: read it as any JSON
    read: Callable[[bytes], Any] | None = None
    keeps: bool = False  # it answers with a `state`, as bytes, and predicts nothing

    @property
    def summary(self) -> str:
        return (self.request.__doc__ or "").strip()
