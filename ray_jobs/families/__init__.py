"""The registry of families: every folder beside this file is one.

`Family` is the whole seam between a kind of model and the machinery: plain
functions in a frozen record, no base class. Adding a folder adds a family.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from ray_jobs.data.clean import Cleaned
from ray_jobs.data.raw import Raw
from ray_jobs.data.sources import Source, each_alone
from ray_jobs.errors import UsageError
from ray_jobs.recipe import Recipe
from ray_jobs.target import Target
from ray_jobs.tuning.space import Space
from ray_jobs.verb import Column, Verb


@dataclass(frozen=True)
class Protocol:
    """How figures are taken, for whatever shows one."""

    words: str
    rows: str  # what a scored row is, many of them: "answers"
    barred: str = ""  # why no model under it may serve; empty: it may


@dataclass(frozen=True)
class Words:
    """How a person speaks of a family, on cards and plots."""

    use: str  # what a model is meant for, and what not
    limits: tuple[str, ...]  # what no figure tells
    ceiling: str = ""  # who makes the best possible predictions of a sample, where anybody can


@dataclass(frozen=True)
class Api:
    """What a family's services and frames look like, each made for a model's vocabulary."""

    verbs: Callable[[Any], Mapping[str, Verb]]  # routes; "predict" is one
    columns: Callable[[Any], Sequence[Column]]  # of the frame an analyst holds
    outputs: Callable[[Any], Sequence[str]]  # columns of predictions, in the order of outcomes
    frame: Callable[[Any, Any], tuple[Sequence[Any], NDArray[np.int64]]]  # -> examples, their rows
    example: Callable[[Any], dict[str, list[Any]]]  # a small valid frame
    golden: Callable[[pl.DataFrame, Any], list[dict[str, Any]]]  # predict requests of a table


@dataclass(frozen=True)
class Family:
    """Everything the machinery may ask of a kind of model.

    An *example* is what is batched together (one learner's history, one row);
    it holds one or more scored rows. `outcomes` gives them back per example: the
    probability of the second outcome, one for each class, or a number.
    """

    name: str
    title: str
    protocol: Callable[[Any], Protocol]  # recipe.columns -> how figures are taken
    words: Words
    # the files of a unit to raw rows, all text, a batch at a time
    read: Callable[[Sequence[Source], Any], Iterable[Raw]]
    clean: Callable[[pl.DataFrame, bool, Any], Cleaned]  # (raw rows, timed, recipe.columns)
    group: str  # column of the raw and the clean table that must not straddle splits
    label: str  # column of the clean table that is predicted
    target: Callable[[Any], Target]  # vocabulary -> what is predicted
    targets: Callable[[pl.DataFrame, Any], NDArray[np.float64]]  # (table, vocabulary) -> truth
    specs: Mapping[str, type[Any]]
    baseline: Callable[[], Any]  # the spec every candidate must beat
    recipes: Mapping[str, Callable[[], Recipe]]
    vocabulary: Callable[[Iterable[pl.DataFrame]], Any]  # of the parts of a train split
    vocabulary_from_json: Callable[[dict[str, Any]], Any]
    examples: Callable[[pl.DataFrame, Any], Sequence[Any]]  # in the order of the table
    cost: Callable[[Any], int]  # of an example, in positions
    collate: Callable[[Sequence[Any], Any], Any]  # (examples, vocabulary) -> a batch
    loss: Callable[[Any, Any], Tensor]  # (outputs, batch) -> summed over scored rows
    weight: Callable[[Any], Tensor]  # number of scored rows in a batch
    outcomes: Callable[[Any, Any], list[NDArray[np.float32]]]  # (outputs, batch)
    slices: Callable[[pl.DataFrame, Any], pl.DataFrame]  # (clean table, vocabulary) -> its parts
    sample: Callable[[Path, int], str]  # (folder, seed) -> the demo's data
    api: Api
    units: Callable[[Sequence[Source]], list[list[Source]]] = each_alone  # files that go together
    # what `examples` yields where a network trains on them: a frozen record of arrays and numbers
    example: type[Any] | None = None
    # (vocabulary, parts of another train split) -> the same with what is new behind it, where a
    # network can begin from one that knew less
    extended: Callable[[Any, Iterable[pl.DataFrame]], Any] | None = None
    keys: tuple[str, ...] = ()  # columns over which rows spread, besides the group: items, say
    # (table, vocabulary) -> each feature with the table in which its values have changed rows
    shuffled: Callable[[pl.DataFrame, Any], Iterable[tuple[str, pl.DataFrame]]] | None = None
    ceiling: Callable[[Path, pl.DataFrame], NDArray[np.float64]] | None = None  # best possible
    whole: bool = False  # rules look at all rows at once, not at those of a group alone
    ordered: bool = True  # the order of a log without times is its time
    spaces: Mapping[str, Space] = field(default_factory=dict)  # what is searched, by spec's name
    # (model, clean table) -> a table of its groups, beside the predictions of its rows, by name
    profiles: Mapping[str, Callable[[Any, pl.DataFrame], pl.DataFrame]] = field(
        default_factory=dict
    )
    showcase: bool = False  # what `lyceum demo` shows


def showcase() -> str:
    """The family that shows what this is about."""
    return next(name for name in families() if family(name).showcase)


def families() -> list[str]:
    """Names of the families there are: the folders beside this file."""
    return sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.ispkg)


@cache
def family(name: str) -> Family:
    """Load a family by name; raises UsageError with the names there are."""
    if name not in families():
        raise UsageError(f"no family {name!r}; there are {', '.join(families())}")
    record = importlib.import_module(f"{__name__}.{name}").FAMILY
    assert isinstance(record, Family)
    return record


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Every named recipe of every family."""
    return {name: make for kind in families() for name, make in family(kind).recipes.items()}


def recipe(name: str) -> Recipe:
    """A recipe by name; raises UsageError with the names there are."""
    # Loading a family takes seconds, and a recipe's name often begins with its family's.
    for kind in sorted(families(), key=lambda family: not name.startswith(family)):
        make = family(kind).recipes.get(name)
        if make is not None:
            return make()
    raise UsageError(f"no recipe {name!r}; there are {', '.join(recipes())}")
