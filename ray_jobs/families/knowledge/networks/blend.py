"""A recurrent and an attentive network that learn side by side; what they say is averaged.

Choose it for the best figures: their errors differ, and the mean of their
logits beats either (an ensemble, Hansen and Salamon 1990). It costs what both cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

import polars as pl
import torch
from torch import Tensor, nn

from ray_jobs.families.knowledge.batch import Batch
from ray_jobs.families.knowledge.loss import Told
from ray_jobs.families.knowledge.networks.attention import Attention, AttentionNetwork
from ray_jobs.families.knowledge.networks.lstm import Lstm, LstmNetwork
from ray_jobs.families.knowledge.networks.neighbours import item_vectors
from ray_jobs.families.knowledge.networks.question import anchored
from ray_jobs.families.knowledge.vocabulary import Vocabulary


@dataclass(frozen=True)
class Blend:
    """Settings of both networks; those that they share are the same for both."""

    name: ClassVar[str] = "blend"
    width: int = 128  # of every hidden vector
    layers: int = 2  # of attention
    heads: int = 4
    block: int = 128  # steps; each step sees its own block and the one before
    neighbours: int = 128  # of the fixed item vectors; 0 leaves them out
    dropout: float = 0.4
    blank: float = 0.1  # share of items blanked at each training step
    hint: float = 0.5  # what a fall of mastery after a right answer costs, by logit; 0: nothing

    def __post_init__(self) -> None:
        """Raises UsageError for settings of which no network can be made."""
        _ = self.recurrent, self.attentive

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A network of the right shape, to be trained or loaded."""
        return BlendNetwork(self, vocabulary)

    def prepare(self, train: Iterable[pl.DataFrame], vocabulary: Vocabulary) -> nn.Module:
        """A network ready to be trained: its item vectors are read off the train split."""
        network = BlendNetwork(self, vocabulary)
        if self.neighbours:
            vectors = item_vectors(train, vocabulary, self.neighbours)
            for member in (network.recurrent, network.attentive):
                member.question.neighbours.copy_(vectors)
        return network

    @property
    def recurrent(self) -> Lstm:
        return Lstm(**{field.name: getattr(self, field.name) for field in fields(Lstm)})

    @property
    def attentive(self) -> Attention:
        return Attention(**{field.name: getattr(self, field.name) for field in fields(Attention)})


class BlendNetwork(nn.Module):
    """Batch → logits (B, T), or (B, Q); while it trains, `Told` of each member, (2, B, T)."""

    def __init__(self, spec: Blend, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.recurrent = LstmNetwork(spec.recurrent, vocabulary)
        self.attentive = AttentionNetwork(spec.attentive, vocabulary)

    def anchor(self, answers: Tensor) -> Tensor:
        """Of so many answers, how many neither member must be told again."""
        return torch.minimum(self.recurrent.anchor(answers), self.attentive.anchor(answers))

    def forward(self, batch: Batch) -> Tensor | Told:
        if batch.keeps:
            return self.recurrent.keep(batch, anchored(self, batch))
        said = [self.recurrent(batch), self.attentive(batch)]
        hinted = [one for one in said if isinstance(one, Told)]
        logits = torch.stack([one.logits if isinstance(one, Told) else one for one in said])
        # Each learns from its own errors: one that leant on the other would add nothing to it.
        if hinted:
            return Told(logits, torch.stack([one.penalty for one in hinted]).mean())
        return logits if self.training else logits.mean(dim=0)
