"""The registry of families: every folder beside this file is one.

`Family` is the whole seam between a kind of model and the machinery: plain
functions in a frozen record, no base class. Adding a folder adds a family.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from ray_jobs.data.clean import Cleaned
from ray_jobs.data.raw import Raw
from ray_jobs.data.sources import Source
from ray_jobs.errors import UsageError
from ray_jobs.recipe import Columns, Recipe


@dataclass(frozen=True)
class Family:
    """Everything the machinery may ask of a kind of model.

    An *example* is what is batched together (one learner's history, one row);
    it holds one or more scored rows. `outcomes` gives them back per example.
    """

    name: str
    title: str
    protocol: str  # how figures are taken, in words, for every report
    read: Callable[[Source, Columns], Raw]  # a file to raw rows, all text
    clean: Callable[[pl.DataFrame, bool, Columns], Cleaned]  # (raw rows, timed, columns)
    group: str  # column of the clean table that must not straddle splits
    target: str  # column of the clean table that is predicted
    headline: str  # the figure that the gate reads
    specs: Mapping[str, type[Any]]
    baseline: Callable[[], Any]  # the spec every candidate must beat
    recipes: Mapping[str, Callable[[], Recipe]]
    vocabulary: Callable[[pl.DataFrame], Any]
    vocabulary_from_json: Callable[[dict[str, Any]], Any]
    examples: Callable[[pl.DataFrame, Any], Sequence[Any]]  # in the order of the table
    cost: Callable[[Any], int]  # of an example, in positions
    collate: Callable[[Sequence[Any], Any], Any]
    loss: Callable[[Tensor, Any], Tensor]  # (outputs, batch) -> summed over scored rows
    weight: Callable[[Any], Tensor]  # number of scored rows in a batch
    outcomes: Callable[[Tensor, Any], list[NDArray[np.float32]]]  # predictions per example
    slices: Callable[[pl.DataFrame, Any], pl.DataFrame]  # (clean table, vocabulary) -> its parts
    sample: Callable[[Path, int], str]  # (folder, seed) -> the demo's data
    ceiling: Callable[[Path, pl.DataFrame], NDArray[np.float64]] | None  # best possible, if known
    api: Any  # module: VERBS, COLUMNS, frame, example and golden


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
    known = recipes()
    if name not in known:
        raise UsageError(f"no recipe {name!r}; there are {', '.join(known)}")
    return known[name]()
