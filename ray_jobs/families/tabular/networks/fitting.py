"""What closed forms share: all rows at once, inner folds by group, predictions as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from ray_jobs.families.tabular.batch import Batch, Rows, outcomes
from ray_jobs.families.tabular.vocabulary import Vocabulary
from ray_jobs.target import Array

CHUNK = 65536  # rows predicted at once
FOLDS = 5


@dataclass(frozen=True)
class Known:
    """N scored rows with their outcomes, and the fold that each group lies in."""

    batch: Batch
    target: Array  # (N,)
    fold: NDArray[np.int64]  # (N,) 0..FOLDS-1

    @classmethod
    def of(cls, tables: list[pl.DataFrame], vocabulary: Vocabulary, seed: int = 0) -> Known:
        """The scored rows of some tables; a group lies in one fold.

        Rows near in time are alike: where times are known, a fold is a span of
        them, so that none is predicted from its neighbours (Bergmeir and Benítez 2012).
        """
        table = pl.concat(tables).filter("scored")
        rows = Rows(table, vocabulary)
        timed = table["time"].null_count() == 0
        fold = _spans(table) if timed else _drawn(table, seed)
        return cls(whole(rows, vocabulary), rows.target, fold)

    @classmethod
    def divided(
        cls, tables: list[pl.DataFrame], vocabulary: Vocabulary, repeats: int
    ) -> list[Known]:
        """The same rows in other folds each time, as often as there are others."""
        every = [cls.of(tables, vocabulary, seed) for seed in range(repeats)]
        return [k for i, k in enumerate(every) if i == 0 or (k.fold != every[0].fold).any()]

    def folds(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """For each fold, the rows outside it and those within."""
        divided = [
            (np.flatnonzero(self.fold != k), np.flatnonzero(self.fold == k)) for k in range(FOLDS)
        ]
        return [(outside, within) for outside, within in divided if len(within)]

    def part(self, chosen: NDArray[np.bool_]) -> Known:
        """Some of the rows."""
        mask = torch.from_numpy(chosen)
        batch = Batch(
            numbers=self.batch.numbers[mask],
            codes=self.batch.codes[mask],
            target=self.batch.target[mask],
            scored=self.batch.scored[mask],
            kind=self.batch.kind,
            sd=self.batch.sd,
        )
        return Known(batch, self.target[chosen], self.fold[chosen])


def _drawn(table: pl.DataFrame, seed: int) -> NDArray[np.int64]:
    """(N,) folds of rows, by drawing groups."""
    groups = table["group"].rank("dense").to_numpy().astype(np.int64) - 1
    places = np.random.default_rng(seed).permutation(int(groups.max()) + 1) % FOLDS
    return np.asarray(places[groups], np.int64)


def _spans(table: pl.DataFrame) -> NDArray[np.int64]:
    """(N,) folds of rows, by when their group begins."""
    begin = pl.col("time").min().over("group")
    order = table.select(pl.struct(begin, "group").rank("dense")).to_series().to_numpy()
    place = order.astype(np.int64) - 1
    return np.asarray(place * FOLDS // (int(place.max()) + 1), np.int64)


def whole(rows: Rows, vocabulary: Vocabulary) -> Batch:
    """All rows as one batch, without a Python object for each."""
    return Batch(
        numbers=torch.from_numpy(rows.numbers),
        codes=torch.from_numpy(rows.codes),
        target=torch.from_numpy(rows.target.astype(np.float32)),
        scored=torch.ones(len(rows), dtype=torch.bool),
        kind=vocabulary.target.kind,
        sd=vocabulary.sd,
    )


def out_of_fold(known: Known, fit: Callable[[Known], nn.Module]) -> Array:
    """Each row's prediction, (N,) or (N, C), by a module fitted without its fold."""
    parts: list[tuple[NDArray[np.bool_], Array]] = []
    for number in range(FOLDS):
        held = known.fold == number
        if held.any():
            parts.append((held, predicted(fit(known.part(~held)), known.part(held).batch)))
    result = np.empty((len(known.target), *parts[0][1].shape[1:]))
    for held, values in parts:
        result[held] = values
    return result


@torch.no_grad()
def predicted(module: nn.Module, batch: Batch) -> Array:
    """(N,) probabilities of the second outcome or numbers, or (N, C) of each class."""
    return np.concatenate(outcomes(module(batch), batch)).astype(np.float64)
