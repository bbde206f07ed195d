"""Attention over earlier answers with a forgetting bias (AKT, Ghosh 2020; ALiBi, Press 2022).

Choose it for long histories on a GPU, or beside the LSTM: their errors differ.
Attention is local to blocks, so that its cost is linear in the length.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ray_jobs.errors import UsageError
from ray_jobs.families.knowledge.batch import Batch, Questions
from ray_jobs.families.knowledge.loss import Told
from ray_jobs.families.knowledge.networks.blocks import block_attention, forgetting
from ray_jobs.families.knowledge.networks.hint import Probes, probes
from ray_jobs.families.knowledge.networks.neighbours import item_vectors
from ray_jobs.families.knowledge.networks.question import (
    Answered,
    Dropout,
    Head,
    Question,
    anchored,
    kept,
    last,
)
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.recipe import within

AHEAD = 1e9  # logits off: of a share nothing is left. Compiled in pieces, none may have no end


@dataclass(frozen=True)
class Attention:
    """Settings of the attention network."""

    name: ClassVar[str] = "attention"
    width: int = 128  # of every hidden vector
    layers: int = 2
    heads: int = 4
    block: int = 128  # steps; each step sees its own block and the one before
    neighbours: int = 128  # of the fixed item vectors; 0 leaves them out
    dropout: float = 0.4
    blank: float = 0.1  # share of items blanked at each training step
    hint: float = 0.5  # what a fall of mastery after a right answer costs, by logit; 0: nothing

    def __post_init__(self) -> None:
        """Raises UsageError for settings of which no network can be made."""
        within(self, width=(1, inf), layers=(1, inf), heads=(1, self.width), block=(1, inf))
        within(self, neighbours=(0, inf), dropout=(0, 0.95), blank=(0, 1), hint=(0, inf))
        if self.width % self.heads:
            raise UsageError(f"spec.width={self.width}: expected a multiple of heads, {self.heads}")

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A network of the right shape, to be trained or loaded."""
        return AttentionNetwork(self, vocabulary)

    def prepare(self, train: Iterable[pl.DataFrame], vocabulary: Vocabulary) -> nn.Module:
        """A network ready to be trained: its item vectors are read off the train split."""
        network = AttentionNetwork(self, vocabulary)
        if self.neighbours:
            network.question.neighbours.copy_(item_vectors(train, vocabulary, self.neighbours))
        return network


class AttentionNetwork(nn.Module):
    """Batch → logits (B, T), or (B, Q) of what is asked after it; while it trains, `Told`."""

    def __init__(self, spec: Attention, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.hint = spec.hint
        self.question = Question(
            vocabulary,
            width=spec.width,
            neighbours=spec.neighbours,
            dropout=spec.dropout,
            blank=spec.blank,
        )
        self.answered = Answered(spec.width)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.dropout = Dropout(spec.dropout)
        self.head = Head(spec.width, spec.dropout)

    def forward(self, batch: Batch) -> Tensor | Told:
        if batch.keeps:
            return kept(anchored(self, batch), batch.counts.new_zeros(len(batch.items), 0))
        if batch.questions is not None:
            return self.ask(batch, batch.questions)
        asked, difficulty, counts = self.question(batch)
        state = self.answered(asked, batch.correct, counts)
        drawn = probes(batch) if self.training and self.hint else None
        look = None if drawn is None else self._look(drawn, asked)
        seen = None if drawn is None else drawn.picked(state).unsqueeze(1)
        for layer in self.layers:
            state, seen = layer(asked, state, look, seen)
        logits: Tensor = self.head(self.dropout(state), asked, difficulty, counts)
        if drawn is None or look is None:
            return logits
        assert seen is not None
        difficulty = self.question.difficulty(drawn.questions.items).squeeze(-1)
        levels = self.head(seen, look.asked, difficulty, drawn.questions.counts, whole=True)
        return Told(logits, drawn.penalty(levels, self.hint))

    def anchor(self, answers: Tensor) -> Tensor:
        """Of so many answers, how many need not be told again: no layer can see them.

        Each layer sees one block before a question's own, and the first of those steps
        holds the answer before it.
        """
        layer = self.layers[0]
        assert isinstance(layer, Layer)
        block = layer.bias.shape[1]
        whole = answers.div(block, rounding_mode="floor") - len(self.layers) - 1
        return whole.clamp(min=0) * block

    def shard_units(self) -> list[nn.Module]:
        """What is gathered one at a time where the network is divided: a layer, and all of it."""
        return list(self.layers)

    def _look(self, drawn: Probes, asked: Tensor) -> Look:
        """What is asked of some learners at some steps."""
        return Look(
            asked=self.question.vectors(drawn.questions.items, drawn.questions.skills),
            before=drawn.picked(pad(asked, (0, 0, 1, 0))),
            rows=drawn.rows,
            steps=drawn.steps,
        )

    def succeed(self, before: AttentionNetwork) -> None:
        """Take over the company of items, and begin new ones by what the predecessor learnt."""
        self.question.succeed(before.question)

    def ask(self, batch: Batch, questions: Questions) -> Tensor:
        """Logits (B, Q): each history is read once, whatever is asked."""
        met, _, past = self.question(batch)
        asked, difficulty, counts = self.question(questions)
        answered = self.answered.all(met, batch.correct, past)
        before = last(pad(met, (0, 0, 1, 0)), batch)
        steps = answered[:, :-1]
        state = last(answered, batch).unsqueeze(1).expand(-1, asked.shape[1], -1)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            near = layer.near(met, steps, batch.mask.sum(dim=1))
            state = layer.ask(asked, state, before, near)
            if layer is not self.layers[-1]:
                steps, _ = layer(met, steps)
        logits: Tensor = self.head(self.dropout(state), asked, difficulty, counts)
        return logits


class Layer(nn.Module):
    """What is asked looks among earlier answers; then a position-wise network."""

    def __init__(self, spec: Attention) -> None:
        super().__init__()
        self.heads = spec.heads
        self.query = nn.Linear(2 * spec.width, spec.width)
        # A key's bias has no gradient but rounding, which Adam would follow.
        self.key_value = nn.Linear(2 * spec.width, 2 * spec.width, bias=False)
        self.out = nn.Linear(spec.width, spec.width)
        self.norm = nn.LayerNorm(spec.width)
        self.inner = nn.Sequential(
            nn.LayerNorm(spec.width),
            nn.Linear(spec.width, 2 * spec.width),
            nn.GELU(),
            Dropout(spec.dropout),
            nn.Linear(2 * spec.width, spec.width),
        )
        self.dropout = Dropout(spec.dropout)
        self.register_buffer("bias", forgetting(spec.heads, spec.block), persistent=False)

    bias: Tensor  # (H, C, 2C); -inf for what lies ahead

    def forward(
        self,
        asked: Tensor,
        state: Tensor,
        look: Look | None = None,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Vectors (B, T, width) that hold, at step t, answers before t only.

        A look among them, with nothing dropped, makes of what was `seen` (N, 1, width) more.
        """
        normed = self.norm(state)
        query = self._split(self.query(torch.cat([asked, normed], dim=-1)))
        # A key is the question that was answered, so it is shifted like the answer.
        key, value = self._told(pad(asked, (0, 0, 1, 0))[:, :-1], normed)
        after = self._read(state, block_attention(query, key, value, self.bias))
        if look is None or seen is None:
            return after, None
        near = self._near(key, value, look.rows, look.steps)
        return after, self.ask(look.asked, seen, look.before, near, whole=True)

    def near(self, met: Tensor, state: Tensor, lengths: Tensor) -> Near:
        """What a question after each history may look at: its last steps, up to two blocks."""
        key, value = self._told(pad(met, (0, 0, 1, 0))[:, :-1], self.norm(state))
        return self._near(key, value, torch.arange(len(lengths), device=met.device), lengths)

    def _near(self, key: Tensor, value: Tensor, rows: Tensor, lengths: Tensor) -> Near:
        """Of keys and values (B, H, T, width / H): what those `rows` have seen after `lengths`."""
        block = self.bias.shape[1]
        first = (lengths.div(block, rounding_mode="floor") - 1).clamp(min=0) * block
        reach = torch.arange(min(2 * block, key.shape[2]), device=key.device)
        step = first[:, None] + reach  # (N, W)
        distance = lengths[:, None] - step
        ahead = (distance <= 0)[:, None, None]
        slopes = -self.bias[:, 0, block - 1, None, None]  # at a distance of one step
        far = (slopes * distance[:, None, None]).masked_fill(ahead, AHEAD)
        at = rows[:, None] * key.shape[2] + step.clamp(max=key.shape[2] - 1)
        return Near(self._picked(key, at), self._picked(value, at), -far)

    def _picked(self, x: Tensor, at: Tensor) -> Tensor:
        """Of (B, H, T, width / H) the steps (N, W), counted through all learners."""
        # By whole rows: the way back through indices of several axes takes ten times as long.
        flat = x.transpose(1, 2).flatten(0, 1).flatten(1)
        return self._split(flat.index_select(0, at.flatten()).view(*at.shape, flat.shape[1]))

    def ask(
        self, asked: Tensor, state: Tensor, before: Tensor, near: Near, *, whole: bool = False
    ) -> Tensor:
        """Vectors (B, Q, width) of questions that see the steps before them and themselves."""
        normed = self.norm(state)
        query = self._split(self.query(torch.cat([asked, normed], dim=-1)))
        answered = before.unsqueeze(1).expand_as(asked)
        own_key, own_value = self._told(answered, normed)
        scale = query.shape[-1] ** -0.5
        seen = query @ near.key.transpose(2, 3) * scale + near.bias  # (B, H, Q, W)
        itself = (query * own_key).sum(dim=-1, keepdim=True) * scale
        share = torch.cat([seen, itself], dim=-1).softmax(dim=-1)
        read = share[..., :-1] @ near.value + share[..., -1:] * own_value
        return self._read(state, read, whole=whole)

    def _told(self, answered: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, T, width / H)."""
        both = self.key_value(torch.cat([answered, normed], dim=-1))
        key, value = (self._split(x) for x in both.chunk(2, dim=-1))
        return key, value

    def _read(self, state: Tensor, read: Tensor, *, whole: bool = False) -> Tensor:
        """The state after what was read (B, H, T, width / H)."""
        read = self.out(read.transpose(1, 2).flatten(2))
        if whole:
            norm, wide, bent, _, narrow = self.inner
            state = state + read
            return state + narrow(bent(wide(norm(state))))  # type: ignore[no-any-return]
        state = state + self.dropout(read)
        result: Tensor = state + self.dropout(self.inner(state))
        return result

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, width) to (B, H, T, width / H)."""
        return x.view(*x.shape[:2], self.heads, x.shape[-1] // self.heads).transpose(1, 2)


@dataclass(frozen=True)
class Look:
    """What is asked of N learners at some step."""

    asked: Tensor  # (N, 1, width)
    before: Tensor  # (N, width) the question that was answered last
    rows: Tensor  # (N,) int64: who is asked
    steps: Tensor  # (N,) int64: how many answers are seen


@dataclass(frozen=True)
class Near:
    """The W steps before the questions of B learners."""

    key: Tensor  # (B, H, W, width / H)
    value: Tensor  # (B, H, W, width / H)
    bias: Tensor  # (B, H, 1, W); -AHEAD where there is no step
