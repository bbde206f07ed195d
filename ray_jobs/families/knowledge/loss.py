"""What is predicted, and what is minimised: binary cross-entropy over the scored answers.

Summed, with its weight apart, so that workers and micro-batches add up to the
same loss however the answers were divided among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ray_jobs.families.knowledge.batch import Batch
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.target import Array, Target


def target(_vocabulary: Vocabulary) -> Target:
    """Whether an answer is right, in the words of reports."""
    return Target("binary", ("wrong answers", "right answers"))


def targets(table: pl.DataFrame, _vocabulary: Vocabulary) -> Array:
    """(N,) credit of the answers of a clean table, 0 to 1."""
    credit: Array = table["correct"].cast(pl.Float64).to_numpy()
    return credit


@dataclass(frozen=True)
class Told:
    """What a network says while it trains, where some of it has a price."""

    logits: Tensor  # (B, T), or (M, B, T) of M networks side by side
    penalty: Tensor  # scalar in nats, summed like the loss


def loss(said: Tensor | Told, batch: Batch) -> Tensor:
    """Summed cross-entropy in nats over scored steps; partial credit is a soft target.

    Of several networks side by side, logits (M, B, T), it is the mean of theirs. In
    training the price of what they should not say comes on top, so that a training
    loss is a little more than the cross-entropy that validation tells.
    """
    if isinstance(said, Told):
        return loss(said.logits, batch) + said.penalty
    logits = said
    told = logits.reshape(-1, *batch.scored.shape)[:, batch.scored]  # (M, N)
    truth = batch.correct[batch.scored].expand_as(told)
    return binary_cross_entropy_with_logits(told, truth, reduction="sum") / len(told)


def weight(batch: Batch) -> Tensor:
    """Number of scored steps, a scalar float32."""
    return batch.scored.sum().float()
