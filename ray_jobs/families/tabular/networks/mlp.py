"""A multilayer perceptron, plain or with what makes one hold its own on tables.

The plain shape is 64-32-1. The modern one embeds categories, looks at numbers
through learnt periods (Gorishniy et al. 2022), and averages several heads that
share their trunk (TabM; Gorishniy et al. 2024). Choose it for many rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor, nn

from ray_jobs.families.tabular.batch import Batch, Outputs
from ray_jobs.families.tabular.networks.encoding import Numbers, OneHot
from ray_jobs.families.tabular.vocabulary import MISSING, UNSEEN, Vocabulary
from ray_jobs.recipe import within


@dataclass(frozen=True)
class Mlp:
    """Settings of the perceptron; the defaults are the modern one."""

    name: ClassVar[str] = "mlp"
    width: int = 128  # of the first hidden layer; the next has half of it
    heads: int = 8  # whose predictions are averaged; 1 is a plain network
    periods: int = 16  # that each number is looked at through; 0 leaves it as it is
    embedding: int = 8  # numbers that a category becomes; 0: one indicator each
    dropout: float = 0.15
    blank: float = 0.02  # share of categories taken for unseen at each training step
    robust: bool = False  # Huber instead of squared error, for numbers with outliers

    def __post_init__(self) -> None:
        """Raises UsageError for settings of which no model can be made."""
        within(self, width=(1, inf), heads=(1, inf), periods=(0, inf), embedding=(0, inf))
        within(self, dropout=(0, 0.95), blank=(0, 1))

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A network of the right shape, to be trained or loaded."""
        return MlpNetwork(self, vocabulary)


class MlpNetwork(nn.Module):
    """Batch → Outputs of H heads."""

    mean: Tensor  # () of a label that is a number
    sd: Tensor  # ()

    def __init__(self, spec: Mlp, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.heads, self.robust = spec.heads, spec.robust
        plain = not spec.periods and not spec.embedding
        self.inputs = OneHot(vocabulary) if plain else Inputs(spec, vocabulary)
        width, half = spec.width, max(1, spec.width // 2)
        self.first = Ensemble(self.inputs.width, width, spec.heads)
        self.second = Ensemble(width, half, spec.heads)
        classes = len(vocabulary.target.outcomes) if vocabulary.target.kind == "classes" else 1
        self.last = nn.Parameter(torch.empty(spec.heads, half, classes))
        self.bias = nn.Parameter(torch.zeros(spec.heads, classes))
        nn.init.uniform_(self.last, -1 / math.sqrt(half), 1 / math.sqrt(half))
        self.dropout = nn.Dropout(spec.dropout)
        self.register_buffer("mean", torch.tensor(vocabulary.mean), persistent=False)
        self.register_buffer("sd", torch.tensor(vocabulary.sd), persistent=False)

    def forward(self, batch: Batch) -> Outputs:
        rows = self.inputs(batch)[:, None].expand(-1, self.heads, -1)  # (B, H, D)
        hidden = self.dropout(torch.relu(self.first(rows)))
        hidden = self.dropout(torch.relu(self.second(hidden)))
        values = torch.einsum("bhd,hdc->bhc", hidden, self.last) + self.bias
        if batch.kind != "classes":
            values = values.squeeze(-1)
        if batch.kind == "number":
            values = self.mean + self.sd * values
        return Outputs(values, self.robust)


class Ensemble(nn.Module):
    """A layer of H heads that share their weights but for a scale of inputs and outputs.

    BatchEnsemble (Wen et al. 2020): (B, H, D) → (B, H, width). One head is a
    plain layer.
    """

    def __init__(self, inputs: int, width: int, heads: int) -> None:
        super().__init__()
        self.shared = nn.Linear(inputs, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(heads, width))
        signs = [torch.randint(0, 2, (heads, n)).float() * 2 - 1 for n in (inputs, width)]
        self.scale = nn.ParameterList(nn.Parameter(s) for s in signs if heads > 1)

    def forward(self, x: Tensor) -> Tensor:
        before, after = (*self.scale, None, None)[:2]
        mixed: Tensor = self.shared(x if before is None else x * before)
        return (mixed if after is None else mixed * after) + self.bias


class Inputs(nn.Module):
    """Rows as (B, D): numbers and their periods, marks of gaps, embedded categories."""

    def __init__(self, spec: Mlp, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.numbers, self.blank = Numbers(vocabulary), spec.blank
        columns, gaps = len(vocabulary.numbers), len(self.numbers.gaps)
        self.periods = Periods(columns, spec.periods, spec.embedding or 8) if spec.periods else None
        size = max(1, spec.embedding)
        self.categories = nn.ModuleList(
            nn.Embedding(len(c.values) + 2, size) for c in vocabulary.categories
        )
        seen = self.periods.width if self.periods else 0
        self.width = columns + gaps + columns * seen + size * len(self.categories)

    def forward(self, batch: Batch) -> Tensor:
        numbers, gaps = self.numbers(batch)
        parts = [numbers, gaps]
        if self.periods:
            parts.append(self.periods(numbers).flatten(1))
        codes = self._blanked(batch.codes)
        parts += [embed(codes[:, i]) for i, embed in enumerate(self.categories)]
        return torch.cat(parts, dim=1)

    def _blanked(self, codes: Tensor) -> Tensor:
        """Some known categories become UNSEEN, so that what is new in service was trained for."""
        if not self.training or self.blank == 0.0:
            return codes
        gone = torch.rand(codes.shape, device=codes.device) < self.blank
        return codes.masked_fill(gone & (codes != MISSING), UNSEEN)


class Periods(nn.Module):
    """Numbers (B, F) as (B, F, width): sines of learnt frequencies, mixed for each column."""

    def __init__(self, columns: int, count: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.frequency = nn.Parameter(0.3 * torch.randn(columns, count))
        self.mix = nn.Parameter(torch.randn(columns, 2 * count, width) / math.sqrt(2 * count))
        self.bias = nn.Parameter(torch.zeros(columns, width))

    def forward(self, numbers: Tensor) -> Tensor:
        turns = 2 * math.pi * numbers.unsqueeze(-1) * self.frequency
        waves = torch.cat([turns.sin(), turns.cos()], dim=-1)  # (B, F, 2 * count)
        return torch.relu(torch.einsum("bfk,fkw->bfw", waves, self.mix) + self.bias)
