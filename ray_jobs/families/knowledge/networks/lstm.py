"""A recurrent memory of what was answered (DKT, Piech et al. 2015) with item difficulty and counts.

The default: the best balance of accuracy and speed on a CPU, for histories of
any length. Batches are of like length and padded; packing is far slower.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ray_jobs.families.knowledge.batch import Batch, Questions
from ray_jobs.families.knowledge.loss import Told
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


@dataclass(frozen=True)
class Lstm:
    """Settings of the recurrent network."""

    name: ClassVar[str] = "lstm"
    width: int = 128  # of every hidden vector
    neighbours: int = 128  # of the fixed item vectors; 0 leaves them out
    dropout: float = 0.4
    blank: float = 0.1  # share of items blanked at each training step
    hint: float = 0.5  # what a fall of mastery after a right answer costs, by logit; 0: nothing

    def __post_init__(self) -> None:
        """Raises UsageError for settings of which no network can be made."""
        within(
            self,
            width=(1, inf),
            neighbours=(0, inf),
            dropout=(0, 0.95),
            blank=(0, 1),
            hint=(0, inf),
        )

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A network of the right shape, to be trained or loaded."""
        return LstmNetwork(self, vocabulary)

    def prepare(self, train: Iterable[pl.DataFrame], vocabulary: Vocabulary) -> nn.Module:
        """A network ready to be trained: its item vectors are read off the train split."""
        network = LstmNetwork(self, vocabulary)
        if self.neighbours:
            network.question.neighbours.copy_(item_vectors(train, vocabulary, self.neighbours))
        return network


class LstmNetwork(nn.Module):
    """Batch → logits (B, T), or (B, Q) of what is asked after it; while it trains, `Told`."""

    def __init__(self, spec: Lstm, vocabulary: Vocabulary) -> None:
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
        self.memory = nn.LSTM(spec.width, spec.width, batch_first=True)
        self.dropout = Dropout(spec.dropout)
        self.head = Head(spec.width, spec.dropout)

    def forward(self, batch: Batch) -> Tensor | Told:
        if batch.keeps:
            lengths = anchored(self, batch)
            return kept(lengths, self.state(batch, lengths))
        if batch.questions is not None:
            return self.ask(batch, batch.questions)
        asked, difficulty, counts = self.question(batch)
        state, _ = self.memory(self.answered(asked, batch.correct, counts))
        logits: Tensor = self.head(self.dropout(state), asked, difficulty, counts)
        if not self.training or self.hint == 0.0:
            return logits
        return Told(logits, self._penalty(state, probes(batch)))

    def _penalty(self, state: Tensor, drawn: Probes) -> Tensor:
        """What falls of mastery cost, with nothing dropped but from what was answered."""
        seen, asked = drawn.picked(state).unsqueeze(1), drawn.questions
        vectors = self.question.vectors(asked.items, asked.skills)
        difficulty = self.question.difficulty(asked.items).squeeze(-1)
        return drawn.penalty(
            self.head(seen, vectors, difficulty, asked.counts, whole=True), self.hint
        )

    def succeed(self, before: LstmNetwork) -> None:
        """Take over the company of items, and begin new ones by what the predecessor learnt."""
        self.question.succeed(before.question)

    def ask(self, batch: Batch, questions: Questions) -> Tensor:
        """Logits (B, Q): each history is read once, whatever is asked."""
        met, _, past = self.question(batch)
        answered = self.answered.all(met, batch.correct, past)
        if batch.memory is None:
            steps, _ = self.memory(answered)
        else:
            begun = self._begun(batch)
            steps, _ = self.memory(answered[:, 1:], begun)
            steps = torch.cat([begun[0].transpose(0, 1), steps], dim=1)
        asked, difficulty, counts = self.question(questions)
        state = last(steps, batch).unsqueeze(1).expand(-1, asked.shape[1], -1)
        logits: Tensor = self.head(self.dropout(state), asked, difficulty, counts)
        return logits

    def anchor(self, answers: Tensor) -> Tensor:
        """Of so many answers, how many need not be told again when what is kept of them is."""
        return answers

    def state(self, batch: Batch, lengths: Tensor) -> Tensor:
        """State and cell (B, 2 * width) after so many answers of each history, (B,)."""
        met, _, counts = self.question(batch)
        answered = self.answered.all(met, batch.correct, counts)[:, 1:]
        hidden, cell = self._begun(batch)
        some = lengths > 0
        if some.any():
            # Each ends where its own history does: what is padded must not be kept.
            packed = pack_padded_sequence(
                answered[some], lengths[some].cpu(), batch_first=True, enforce_sorted=False
            )
            _, (later, cells) = self.memory(packed, (hidden[:, some], cell[:, some]))
            hidden, cell = hidden.clone(), cell.clone()
            hidden[:, some], cell[:, some] = later, cells
        return torch.cat([hidden[0], cell[0]], dim=-1)

    def _begun(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """State and cell (1, B, width) before the answers of each history."""
        width = self.memory.hidden_size
        _, (hidden, cell) = self.memory(batch.counts.new_zeros(1, 1, width))  # the empty answer
        new = torch.cat([hidden[0], cell[0]], dim=-1).expand(len(batch.items), -1)
        if batch.memory is not None:
            new = torch.where(batch.memory.isnan(), new, batch.memory)
        return new[None, :, :width].contiguous(), new[None, :, width:].contiguous()
