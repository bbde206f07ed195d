"""What the contract tests share: each family's own sample, cut small, and models of it.

No family is named here either: whatever the registry finds is prepared as a run prepares it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from ray_jobs.artifact import Artifact
from ray_jobs.data.clean import CleanTable, clean
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.sources import find
from ray_jobs.data.split import split
from ray_jobs.data.tables import read_parquet
from ray_jobs.families import families, family
from ray_jobs.privacy import Key
from ray_jobs.recipe import Budget, Split
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.team import Team

KEY = Key(bytes(32))
GROUPS = {"train": 80, "validation": 20, "test": 20}
LONGEST = 40  # rows of a group that are kept
SMALL = 16  # the most that a whole number of a spec may be: widths, blocks and the like
BUDGET = Budget(epochs=4, batch_cost=256, learning_rate=1e-2)
MODELS = [(kind, spec) for kind in families() for spec in family(kind).specs]


@dataclass(frozen=True)
class Sampled:
    """A family's sample as clean, split tables of a few groups each."""

    files: dict[str, bytes]  # as they were sampled, under seed 0
    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    ceiling: NDArray[np.float64] | None  # best possible prediction of each row of `test`


@cache
def sampled(kind: str) -> Sampled:
    """Sample, ingest, clean and split, as a run does; the same for every test."""
    of = family(kind)
    with TemporaryDirectory() as folder:
        cleaned = prepared(kind, Path(folder))
        files = contents(Path(folder, "sample"))
        parts = split(cleaned, Split(), group=of.group, salt=kind, uri=f"{folder}/split")
        tables = {n: few(read_parquet(parts.table(n)), of.group, n) for n in GROUPS}
        best = of.ceiling(Path(folder, "sample"), tables["test"]) if of.ceiling else None
    return Sampled(files, **tables, ceiling=best)


def prepared(kind: str, folder: Path) -> CleanTable:
    """A family's sample as its clean table, with everything below a folder."""
    of = family(kind)
    columns = next(iter(of.recipes.values()))().columns
    snapshot, _ = ingest(
        of.units(find(of.sample(folder / "sample", 0))),
        lambda unit: of.read(unit, columns),
        group=of.group, ordered=of.ordered, key=KEY, store_uri=str(folder / "store"),
    )  # fmt: skip
    return clean(
        snapshot,
        lambda rows, timed: of.clean(rows, timed, columns),
        uri=str(folder / "clean"), key=KEY, max_bad_fraction=0.2, whole=of.whole,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def few(table: pl.DataFrame, group: str, part: str) -> pl.DataFrame:
    """The first rows of the first groups of a split."""
    names = table[group].unique(maintain_order=True).head(GROUPS[part])
    some = table.filter(pl.col(group).is_in(names.to_list()))
    return some.filter(pl.int_range(pl.len()).over(group) < LONGEST)


def small(kind: str, name: str) -> Any:
    """A spec with the settings it comes with, but no whole number above SMALL."""
    spec = family(kind).specs[name]()
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    return replace(spec, **{k: min(v, SMALL) for k, v in values.items() if type(v) is int})


def fresh(kind: str, name: str, seed: int = 0) -> nn.Module:
    """A network as training begins with it, or a closed form fitted."""
    world, spec = sampled(kind), small(kind, name)
    vocabulary = family(kind).vocabulary([world.train])
    torch.manual_seed(seed)
    if hasattr(spec, "fit"):
        module = spec.fit(world.train, world.validation, vocabulary)
    elif hasattr(spec, "prepare"):
        module = spec.prepare([world.train], vocabulary)
    else:
        module = spec.build(vocabulary)
    assert isinstance(module, nn.Module)
    return module.eval()


@cache
def taught(kind: str, name: str) -> Artifact:
    """A small model of the sample, trained by the loop where it is not fitted."""
    of, world, module = family(kind), sampled(kind), fresh(kind, name)
    vocabulary = of.vocabulary([world.train])
    if not hasattr(small(kind, name), "fit"):
        known, held_out = (of.examples(t, vocabulary) for t in (world.train, world.validation))
        state = State.of(module, BUDGET, Team())
        lesson = Lesson(of, vocabulary, known, held_out, BUDGET, seed=0)
        module.load_state_dict(run(state, lesson, Team(), lambda *_: None).best)
    return Artifact(of, small(kind, name), vocabulary, module.eval(), {}, digest="")
