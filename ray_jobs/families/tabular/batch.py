"""Rows to tensors: the one collate function of training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_jobs.families.tabular.table import PREFIX
from ray_jobs.families.tabular.vocabulary import MISSING, UNSEEN, Vocabulary


@dataclass(frozen=True)
class Row:
    """One case, as numbers and codes."""

    numbers: NDArray[np.float32]  # (F,) NaN where missing
    codes: NDArray[np.int64]  # (C,) of categories; 0 missing, 1 never seen in training
    target: float  # place of the outcome, or the number; 0 where it is asked for
    scored: bool  # trained on, evaluated or asked for


@dataclass(frozen=True)
class Batch:
    """B rows."""

    numbers: Tensor  # (B, F) float32, NaN where missing
    codes: Tensor  # (B, C) int64
    target: Tensor  # (B,) float32: place of the outcome, or the number
    scored: Tensor  # (B,) bool; True where the loss and the metrics look
    kind: str  # of the target
    sd: float  # of a target that is a number: the unit of its loss


class Rows(Sequence[Row]):
    """The rows of a table, each made when it is asked for."""

    def __init__(self, table: pl.DataFrame, vocabulary: Vocabulary) -> None:
        self.numbers, self.codes = encoded(table, vocabulary)
        asked = "label" not in table.columns
        zeros = np.zeros(len(table), np.float64)
        self.target = zeros if asked else vocabulary.truth(table["label"])
        self.scored = np.ones(len(table), np.bool_) if asked else table["scored"].to_numpy()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> Row:  # type: ignore[override]
        return Row(self.numbers[i], self.codes[i], float(self.target[i]), bool(self.scored[i]))


def encoded(
    table: pl.DataFrame, vocabulary: Vocabulary
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, F) numbers and (N, C) codes of a table with the vocabulary's features."""
    numbers = np.empty((len(table), len(vocabulary.numbers)), np.float32)
    for i, number in enumerate(vocabulary.numbers):
        numbers[:, i] = table[PREFIX + number.name].cast(pl.Float32).fill_null(np.nan).to_numpy()
    codes = np.empty((len(table), len(vocabulary.categories)), np.int64)
    for i, category in enumerate(vocabulary.categories):
        column = table[PREFIX + category.name]
        known = column.replace_strict(category.codes, default=UNSEEN, return_dtype=pl.Int64)
        codes[:, i] = (
            known.to_frame("k")
            .select(pl.when(column.is_null()).then(MISSING).otherwise(pl.col("k")))
            .to_series()
            .to_numpy()
        )
    return numbers, codes


def cost(_row: Row) -> int:
    """Every row takes one position of a batch."""
    return 1


def collate(rows: Sequence[Row], vocabulary: Vocabulary) -> Batch:
    return Batch(
        numbers=torch.from_numpy(np.stack([row.numbers for row in rows])),
        codes=torch.from_numpy(np.stack([row.codes for row in rows])),
        target=torch.tensor([row.target for row in rows], dtype=torch.float32),
        scored=torch.tensor([row.scored for row in rows]),
        kind=vocabulary.target.kind,
        sd=vocabulary.sd,
    )


@dataclass(frozen=True)
class Outputs:
    """What a network says of B rows, by each of its H heads.

    `values` are logits of the second outcome (B, H), of each class (B, H, C), or
    numbers (B, H) in the unit of the label.
    """

    values: Tensor
    robust: bool = False  # learnt by the Huber loss instead of the squared one


def outcomes(outputs: Outputs, batch: Batch) -> list[NDArray[np.float32]]:
    """Of each row its prediction, (1,) or (1, C), the mean over heads; none where not scored."""
    values = outputs.values.detach().float()
    if batch.kind == "binary":
        values = torch.sigmoid(values)
    elif batch.kind == "classes":
        values = torch.softmax(values, dim=-1)
    told = values.mean(dim=1).cpu().numpy()
    return [told[i : i + scored] for i, scored in enumerate(batch.scored.tolist())]
