"""A job's splits in memory: the train and validation rows, and the vocabulary of the first.

Every worker reads them itself from the store, so nothing but URIs travels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from ray_jobs import remote, store
from ray_jobs.data.tables import parts, read_parquet
from ray_jobs.errors import TrainingError
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
        """Read a job's splits from the store."""
        kind = family(job.family)
        train, validation = read_parquet(job.train), read_parquet(job.validation)
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


def check_splits(job: TrainJob) -> None:
    """Raise TrainingError for a split without rows, reading no more than its footer."""
    for name, uri in (("train", job.train), ("validation", job.validation)):
        if not store.exists(uri):
            raise TrainingError(f"no {name} split at {uri}; run the split stage again")
        if sum(_rows(part) for part in parts(uri)) == 0:
            raise TrainingError(f"the {name} split {uri} has no rows; expected at least one")


def _rows(uri: str) -> int:
    with remote.opened(uri) as file:
        return int(pq.read_metadata(file).num_rows)
