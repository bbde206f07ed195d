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
from torch import Tensor, nn

from ray_jobs.errors import UsageError
from ray_jobs.recipe import Recipe


@dataclass(frozen=True)
class Family:
    """Everything the machinery may ask of a kind of model.

    An *example* is what is batched together (one learner's history, one row);
    it holds one or more scored rows. `outcomes` gives them back per example.
    """

    name: str
    title: str
    protocol: str  # how figures are taken, in words, for every report
    read: Callable[..., Any]  # see data/ingest.py
    clean: Callable[..., Any]  # see data/clean.py
    group: str  # column of the clean table that must not straddle splits
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
    api: Any  # module: request and response models, and how to answer


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


def module_of(build: Callable[..., Any], *args: Any) -> nn.Module:
    """Build a network and check that it is one."""
    module = build(*args)
    assert isinstance(module, nn.Module)
    return module
