"""A verb: one POST route of a service, from request to examples to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Verb:
    """Request and response models, and the functions between them and the model.

    The request's model states an example of itself, which the documentation
    shows; its docstring is the summary.
    """

    request: type[BaseModel]
    response: type[BaseModel]
    cost: Callable[[Any], int]  # request -> positions its examples will take, before they are made
    examples: Callable[[Any, Any], list[Any]]  # (request, vocabulary) -> what is predicted
    answer: Callable[[Any, Sequence[Any], Any], dict[str, Any]]  # (request, outcomes, vocabulary)

    @property
    def summary(self) -> str:
        return (self.request.__doc__ or "").strip()
