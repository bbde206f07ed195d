"""Recurrent networks and an attentive one that learn side by side; what they say is averaged.

Choose it for the best figures: their errors differ, and the mean of their
logits beats either (an ensemble, Hansen and Salamon 1990). It costs what all cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import polars as pl
import torch
from torch import Tensor, nn

from ray_jobs.families.knowledge.batch import Batch
from ray_jobs.families.knowledge.loss import Told
from ray_jobs.families.knowledge.networks.attention import Attention, AttentionNetwork
from ray_jobs.families.knowledge.networks.lstm import Lstm, LstmNetwork
from ray_jobs.families.knowledge.networks.neighbours import item_vectors
from ray_jobs.families.knowledge.networks.question import anchored, kept
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.recipe import within


@dataclass(frozen=True)
class Blend:
    """Settings of both networks; those that they share are the same for both."""

    name: ClassVar[str] = "blend"
    recurrents: int = 3  # members that differ in what they begin with; the attentive one is alone
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
        within(self, recurrents=(1, 16))

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A network of the right shape, to be trained or loaded."""
        return BlendNetwork(self, vocabulary)

    def prepare(self, train: Iterable[pl.DataFrame], vocabulary: Vocabulary) -> nn.Module:
        """A network ready to be trained: its item vectors are read off the train split."""
        network = BlendNetwork(self, vocabulary)
        if self.neighbours:
            vectors = item_vectors(train, vocabulary, self.neighbours)
            for member in network.members:
                member.question.neighbours.copy_(vectors)
        return network

    @property
    def recurrent(self) -> Lstm:
        return Lstm(**{field.name: getattr(self, field.name) for field in fields(Lstm)})

    @property
    def attentive(self) -> Attention:
        return Attention(**{field.name: getattr(self, field.name) for field in fields(Attention)})


class BlendNetwork(nn.Module):
    """Batch → logits (B, T), or (B, Q); while it trains, `Told` of each member, (M, B, T)."""

    def __init__(self, spec: Blend, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.recurrent = nn.ModuleList(
            LstmNetwork(spec.recurrent, vocabulary) for _ in range(spec.recurrents)
        )
        self.attentive = AttentionNetwork(spec.attentive, vocabulary)

    @property
    def members(self) -> list[Any]:
        return [*self.recurrent, self.attentive]

    def shard_units(self) -> list[nn.Module]:
        """What is gathered one at a time where the network is divided."""
        return self.attentive.shard_units()

    def succeed(self, before: BlendNetwork) -> None:
        """Each member succeeds that of its place."""
        for own, theirs in zip(self.members, before.members, strict=True):
            own.succeed(theirs)

    def anchor(self, answers: Tensor) -> Tensor:
        """Of so many answers, how many no member must be told again."""
        return self.attentive.anchor(answers)  # a recurrent one need never be

    def forward(self, batch: Batch) -> Tensor | Told:
        if batch.keeps:
            lengths = anchored(self, batch)
            states = [one.state(own, lengths) for one, own in self._recurrent(batch)]
            return kept(lengths, torch.cat(states, dim=-1))
        said = [one(own) for one, own in self._recurrent(batch)] + [self.attentive(batch)]
        hinted = [one for one in said if isinstance(one, Told)]
        logits = torch.stack([one.logits if isinstance(one, Told) else one for one in said])
        # Each learns from its own errors: one that leant on the other would add nothing to it.
        if hinted:
            return Told(logits, torch.stack([one.penalty for one in hinted]).mean())
        return logits if self.training else logits.mean(dim=0)

    def _recurrent(self, batch: Batch) -> list[tuple[Any, Batch]]:
        """Each recurrent member, and the batch as that one knows it: with what it kept."""
        if batch.memory is None:
            return [(one, batch) for one in self.recurrent]
        parts = batch.memory.chunk(len(self.recurrent), dim=1)
        own = [replace(batch, memory=part) for part in parts]
        return list(zip(self.recurrent, own, strict=True))
