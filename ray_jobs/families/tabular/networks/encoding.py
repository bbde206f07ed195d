"""Rows as plain vectors: numbers standardised, categories one-hot, gaps marked.

What is missing stands at the mean, with a mark beside it where the train split
had gaps; a value never seen in training has no mark at all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ray_jobs.families.tabular.batch import Batch
from ray_jobs.families.tabular.vocabulary import UNSEEN, Vocabulary

FARTHEST = 6.0  # standard deviations; what lies beyond is taken for that


class Numbers(nn.Module):
    """Numbers as (B, F) in standard deviations, and (B, G) marks of those with gaps."""

    mean: Tensor  # (F,)
    sd: Tensor  # (F,)
    gaps: Tensor  # (G,) int64, columns that had gaps in training

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        columns = vocabulary.numbers
        self.register_buffer("mean", torch.tensor([n.mean for n in columns]), persistent=False)
        self.register_buffer("sd", torch.tensor([n.sd for n in columns]), persistent=False)
        gaps = [i for i, n in enumerate(columns) if n.missing > 0]
        self.register_buffer("gaps", torch.tensor(gaps, dtype=torch.int64), persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        missing = batch.numbers.isnan()
        scaled = ((batch.numbers - self.mean) / self.sd).clamp(-FARTHEST, FARTHEST)
        return scaled.masked_fill(missing, 0.0), missing[:, self.gaps].float()


class OneHot(nn.Module):
    """Rows as (B, D) vectors: numbers, marks of gaps, and an indicator of each known category."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.numbers = Numbers(vocabulary)
        self.sizes = [len(c.values) + 2 for c in vocabulary.categories]
        self.width = len(vocabulary.numbers) + len(self.numbers.gaps)
        self.width += sum(size - 1 for size in self.sizes)

    def forward(self, batch: Batch) -> Tensor:
        numbers, gaps = self.numbers(batch)
        parts = [numbers, gaps]
        for i, size in enumerate(self.sizes):
            known = nn.functional.one_hot(batch.codes[:, i], size).float()
            parts.append(torch.cat([known[:, :UNSEEN], known[:, UNSEEN + 1 :]], dim=1))
        return torch.cat(parts, dim=1)
