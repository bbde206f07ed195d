"""What is asked, and what was answered, as vectors: shared by the neural networks.

An item is its skills, a vector of its own, a difficulty, and (where a training
split was at hand) the company it keeps. Now and then a share of the items is
blanked to UNSEEN in training, so that items met first in service are served well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, gelu, linear, pad

from ray_jobs.families.knowledge.batch import Batch, Questions
from ray_jobs.families.knowledge.counts import COLUMNS, ITEM_COLUMNS
from ray_jobs.families.knowledge.networks.neighbours import in_terms_of
from ray_jobs.families.knowledge.vocabulary import PADDING, UNSEEN, Vocabulary

BYTES = 256  # there are as many


class Question(nn.Module):
    """Embeds the item and skill set asked at each step, (B, T, width)."""

    neighbours: Tensor  # (V, N) fixed vectors of the items' company; row UNSEEN is 0

    def __init__(
        self, vocabulary: Vocabulary, *, width: int, neighbours: int, dropout: float, blank: float
    ) -> None:
        super().__init__()
        self.blank = blank
        self.skill = nn.Embedding(len(vocabulary.skills) + 2, width, padding_idx=PADDING)
        self.item = nn.Embedding(len(vocabulary.items) + 2, width, padding_idx=PADDING)
        self.difficulty = nn.Embedding(len(vocabulary.items) + 2, 1, padding_idx=PADDING)
        nn.init.zeros_(self.difficulty.weight)
        nn.init.normal_(self.item.weight, std=0.02)
        self.company = nn.Linear(neighbours, width, bias=False) if neighbours else None
        self.register_buffer("neighbours", torch.zeros(len(vocabulary.items) + 2, neighbours))
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch | Questions) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of what is asked (B, T, width), difficulties (B, T), counts (B, T, C)."""
        items, counts = self._blanked(batch.items, batch.counts)
        asked = self.dropout(self.vectors(items, batch.skills))
        return asked, self.difficulty(items).squeeze(-1), counts

    def vectors(self, items: Tensor, skills: Tensor) -> Tensor:
        """Of items (B, T) with skills (B, T, K), as they are: (B, T, width)."""
        known = (skills != PADDING).sum(dim=-1, keepdim=True).clamp(min=1)
        vectors = self._skills(skills) / known + self.item(items)
        if self.company is not None:
            vectors = vectors + self.company(self.neighbours[items])
        return as_multiplied(self.norm(vectors))

    def succeed(self, before: Question) -> None:
        """An item that is new begins as one nobody has seen, a skill as the mean of the others.

        Who is met in the data keeps its company of now, and who is not, that of before.
        """
        with torch.no_grad():
            for own, theirs in ((self.item, before.item), (self.difficulty, before.difficulty)):
                own.weight[theirs.num_embeddings :] = theirs.weight[UNSEEN]
            known = before.skill.weight[UNSEEN + 1 :]
            if len(known):
                self.skill.weight[before.skill.num_embeddings :] = known.mean(dim=0)
            company = in_terms_of(before.neighbours, self.neighbours)
            lone = ~company[: len(before.neighbours)].any(dim=1)
            company[: len(before.neighbours)][lone] = before.neighbours[lone]
            self.neighbours.copy_(company)

    def _skills(self, skills: Tensor) -> Tensor:
        """The sum of the vectors of each set, (B, T, width), at one go."""
        sets = skills.flatten(0, -2)
        summed = embedding_bag(sets, self.skill.weight, mode="sum", padding_idx=PADDING)
        return summed.view(*skills.shape[:-1], self.skill.embedding_dim)

    def _blanked(self, items: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """A random share of the ids becomes UNSEEN, together with what is counted by item."""
        if not self.training or self.blank == 0.0:
            return items, counts
        chosen = torch.rand(self.item.num_embeddings, device=items.device) < self.blank
        gone = chosen[items] & (items != PADDING)
        counts = counts.clone()
        counts[..., ITEM_COLUMNS] = counts[..., ITEM_COLUMNS] * ~gone.unsqueeze(-1)
        return items.masked_fill(gone, UNSEEN), counts


def as_multiplied(x: Tensor) -> Tensor:
    """In the precision in which a step multiplies, once rather than before each product."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def last(steps: Tensor, batch: Batch) -> Tensor:
    """Of rows (B, T + 1, width), the one that holds all answers of each history, (B, width)."""
    return steps[torch.arange(len(steps), device=steps.device), batch.mask.sum(dim=1)]


def anchored(network: Any, batch: Batch) -> Tensor:
    """How many of the answers of each history a network need not be told again, (B,) int64."""
    answers = batch.mask.sum(dim=1)
    before = torch.zeros_like(answers) if batch.before is None else batch.before
    anchor: Tensor = network.anchor(before + answers) - before
    return anchor


def kept(lengths: Tensor, memory: Tensor) -> Tensor:
    """What a network says of answers to be kept: how many it holds, and how (B, 1 + W)."""
    return torch.cat([lengths.unsqueeze(1).to(memory.dtype), memory], dim=1)


class Dropout(nn.Module):
    """Dropout by random bytes, eight to a draw, since a CPU draws one after the other.

    So the share is kept to the nearest 256th.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = round(share * BYTES)  # of 256 values

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.dropped == 0:
            return x
        drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
        drawn.random_(-(2**63), None)
        # Compared into numbers at once: by way of truth values it takes four times as long.
        kept = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        torch.ge(drawn.view(torch.uint8)[: x.numel()].view(x.shape), self.dropped, out=kept)
        return x * kept.mul_(BYTES / (BYTES - self.dropped))


class Answered(nn.Module):
    """Embeds each step's previous answer, (B, T, width): what was asked, when, and how it went.

    When is told by the counts of just before it: how long ago the skill was met, how often.

    Already shifted: row t holds answer t-1, and row 0 nothing, so whatever reads
    rows up to t knows strictly earlier answers only.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * width, width, bias=False)
        self.counts = nn.Linear(len(COLUMNS), width)

    def forward(self, asked: Tensor, correct: Tensor, counts: Tensor) -> Tensor:
        return self.all(asked, correct, counts)[:, :-1]

    def all(self, asked: Tensor, correct: Tensor, counts: Tensor) -> Tensor:
        """One row more, (B, T + 1, width): the last answer too, for what is asked after it."""
        # Had it been right, and had it been wrong: cheaper than a question of twice the width,
        # of which one half holds zeros.
        right, wrong = self.project.weight.chunk(2, dim=1)
        right, wrong = (linear(asked, half) for half in (right, wrong))
        answered = torch.lerp(wrong, right, correct.unsqueeze(-1).to(right.dtype))
        return pad(answered + self.counts(counts), (0, 0, 1, 0))


class Head(nn.Module):
    """What is known of the learner, what is asked and the counts → logits (B, T)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width + len(COLUMNS), width)
        self.dropout = Dropout(dropout)
        self.logit = nn.Linear(width, 1)
        self.linear = nn.Linear(len(COLUMNS), 1, bias=False)

    def forward(
        self,
        state: Tensor,
        asked: Tensor,
        difficulty: Tensor,
        counts: Tensor,
        *,
        whole: bool = False,  # nothing is dropped, even in training
    ) -> Tensor:
        # Of each its own product, since to lay them side by side takes as long as to multiply.
        width = asked.shape[-1]
        of_state, of_asked, of_counts = self.hidden.weight.tensor_split((width, 2 * width), dim=1)
        hidden = linear(state, of_state) + linear(asked, of_asked)
        hidden = gelu(hidden + linear(counts, of_counts, self.hidden.bias))
        hidden = hidden if whole else self.dropout(hidden)
        logit: Tensor = self.logit(hidden) + self.linear(counts)
        return logit.squeeze(-1) - difficulty
