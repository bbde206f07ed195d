"""A job's splits in memory: the train and validation rows, and the vocabulary of the first.

Every worker reads them itself from the store, so nothing but URIs travels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import polars as pl

from ray_jobs import store
from ray_jobs.errors import StoreError, TrainingError
from ray_jobs.families import Family, family
from ray_jobs.recipe import spec_from
from ray_jobs.training.job import TrainJob
from ray_jobs.training.loop import Lesson


@dataclass(frozen=True)
class Splits:
    """What a job learns from, with what its family makes of it."""

    family: Family
    spec: Any
    vocabulary: Any  # of the train split alone
    train: pl.DataFrame
    validation: pl.DataFrame

    @classmethod
    def of(cls, job: TrainJob) -> Splits:
        """Read a job's splits; raises TrainingError when one is empty."""
        kind = family(job.family)
        train, validation = read_table(job.train), read_table(job.validation)
        for name, table, uri in (
            ("train", train, job.train),
            ("validation", validation, job.validation),
        ):
            if table.is_empty():
                raise TrainingError(f"the {name} split {uri} is empty; expected at least one row")
        spec = spec_from(job.spec, kind.specs)
        return cls(kind, spec, kind.vocabulary(train), train, validation)

    def lesson(self, job: TrainJob) -> Lesson:
        """The splits as examples, for the loop."""
        return Lesson(
            family=self.family,
            vocabulary=self.vocabulary,
            train=self.family.examples(self.train, self.vocabulary),
            validation=self.family.examples(self.validation, self.vocabulary),
            budget=job.budget,
            seed=job.seed,
        )


def read_table(uri: str) -> pl.DataFrame:
    """A Parquet file of the store; raises StoreError when it is missing or damaged."""
    if not store.exists(uri):
        raise StoreError(f"nothing at {uri}; expected a Parquet file")
    source = store.local_path(uri) if store.is_local(uri) else io.BytesIO(store.read_bytes(uri))
    try:
        return pl.read_parquet(source)
    except pl.exceptions.ComputeError as error:
        raise StoreError(f"{uri} is not a Parquet file: {error}") from error
