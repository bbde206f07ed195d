"""A job's splits: tables on the store, and the examples made of them on this node.

The vocabulary is read off the train split once, by whoever starts the workers.
Every worker reads the rest itself, part by part, so nothing but URIs travels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import torch
from torch import nn

from ray_jobs import code, manifest, remote, settings, store
from ray_jobs.data.tables import parts, read_parquet
from ray_jobs.errors import TrainingError
from ray_jobs.families import Family, family
from ray_jobs.recipe import spec_from
from ray_jobs.training import shards, warm
from ray_jobs.training.job import TrainJob
from ray_jobs.training.loop import Lesson
from ray_jobs.training.shards import Shards


@dataclass(frozen=True)
class Splits:
    """What a job learns from, with what its family makes of it."""

    job: TrainJob
    family: Family
    spec: Any
    vocabulary: Any  # of the train split alone

    @classmethod
    def of(cls, job: TrainJob, vocabulary: str = "") -> Splits:
        """The splits of a job whose vocabulary has been noted, at a place of its own or another."""
        kind = family(job.family)
        known = kind.vocabulary_from_json(store.read_json(vocabulary or job.vocabulary))
        return cls(job, kind, spec_from(job.spec, kind.specs), known)

    @classmethod
    def seen(cls, job: TrainJob, train: Iterable[pl.DataFrame]) -> Splits:
        """The splits of a job whose vocabulary is read off the parts of its train split now."""
        kind = family(job.family)
        spec = spec_from(job.spec, kind.specs)
        if not job.parent:
            return cls(job, kind, spec, kind.vocabulary(train))
        before = warm.read(job.parent, job.parent_digest)
        if why := warm.misfit(before, spec):
            raise TrainingError(f"training cannot begin from {job.parent}: {why}")
        assert kind.extended is not None, "misfit has seen to that"
        return cls(job, kind, spec, kind.extended(before.vocabulary, train))

    def note_vocabulary(self, uri: str = "") -> None:
        """Lay the vocabulary where every worker finds it."""
        store.write_json(uri or self.job.vocabulary, self.vocabulary.as_json())

    def network(self, *, prepared: bool = True) -> nn.Module:
        """A network to be trained, by the seed.

        Prepared, it holds what its spec reads off the data, and what its predecessor knew.
        """
        torch.manual_seed(self.job.seed)
        if prepared and hasattr(self.spec, "prepare"):
            module = self.spec.prepare(tables(self.job.train), self.vocabulary)
        else:
            module = self.spec.build(self.vocabulary)
        assert isinstance(module, nn.Module), f"{self.spec} gave {module}, which is no module"
        if prepared and self.job.parent:
            before = warm.read(self.job.parent, self.job.parent_digest)
            warm.begin(module, before.module, self.job.kept)
        return module

    def lesson(self) -> Lesson:
        """The splits as examples on this node's disk, for the loop."""
        return Lesson(
            family=self.family,
            vocabulary=self.vocabulary,
            train=self._local(self.job.train),
            validation=self._local(self.job.validation),
            budget=self.job.budget,
            seed=self.job.seed,
        )

    def all_in_memory(self, train: pl.DataFrame, validation: pl.DataFrame) -> Lesson:
        """The splits of who has read them whole already, as a closed form must."""
        of = self.family
        known, held_out = (of.examples(table, self.vocabulary) for table in (train, validation))
        return Lesson(of, self.vocabulary, known, held_out, self.job.budget, self.job.seed)

    def forget(self) -> None:
        """Leave nothing of the splits on this node."""
        shards.forget(self._cache, self._keys.values())

    def _local(self, uri: str) -> Shards:
        def made(table: pl.DataFrame) -> Sequence[Any]:
            return self.family.examples(table, self.vocabulary)

        def examples() -> Iterator[Sequence[Any]]:
            return map(made, tables(uri))  # a loop would hold a part until the next one is read

        record = self.family.example
        assert record is not None, f"{self.family.name} does not say what its examples are"
        return shards.local(self._cache, self._keys[uri], record, examples, self.family.cost)

    @cached_property
    def _cache(self) -> Path:
        return shards.cache(settings.read().home)

    @cached_property
    def _making(self) -> dict[str, str]:
        """What decides how rows become examples."""
        words = manifest.digest(self.vocabulary.as_json())
        return {"vocabulary": words, "code": code.digest(self.family.examples, self.family.cost)}

    @cached_property
    def _keys(self) -> dict[str, str]:
        """Of each split's examples, found once: who forgets them in the end asks no storage."""
        splits = (self.job.train, self.job.validation)
        return {uri: self._key(uri) for uri in splits}

    def _key(self, uri: str) -> str:
        sizes = store.sizes(uri)
        return manifest.digest({"uri": uri, "sizes": sizes} | self._making)[:24]


def tables(uri: str) -> Iterator[pl.DataFrame]:
    """A split, part by part; of a group a part holds all rows or none."""
    return map(read_parquet, parts(uri))


def check_splits(job: TrainJob) -> None:
    """Raise TrainingError for a split without rows, reading no more than its footer."""
    for name, uri in (("train", job.train), ("validation", job.validation)):
        if not store.exists(uri):
            raise TrainingError(f"no {name} split at {uri}; run the split stage again")
        if sum(_rows(part) for part in parts(uri)) == 0:
            raise TrainingError(f"the {name} split {uri} has no rows; expected at least one")


@remote.waits
def _rows(uri: str) -> int:
    with remote.opened(uri) as file:
        return int(pq.read_metadata(file).num_rows)
