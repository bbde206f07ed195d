"""The baseline: item difficulty against a running rating of each skill (Elo, Pelánek 2016).

Choose it for very small data, or where every figure must be explained by hand.
Ratings follow each answer; difficulties are fitted to them by Newton steps, in seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ray_jobs.families.knowledge.batch import Batch, Questions, collate, cost, examples
from ray_jobs.families.knowledge.loss import loss, weight
from ray_jobs.families.knowledge.networks.question import anchored, kept
from ray_jobs.families.knowledge.vocabulary import PADDING, UNSEEN, Vocabulary
from ray_jobs.predictor import batches

log = logging.getLogger(__name__)

STEPS = (0.2, 0.3, 0.45, 0.7)  # how far the first answer moves a rating, in logits: the grid
FATIGUE = 0.1  # how much each earlier answer shortens the next step
BATCH_COST = 200_000  # positions; time is spent per step of the longest, so batches are wide


@dataclass(frozen=True)
class Rasch:
    """Settings of the Elo/Rasch baseline."""

    name: ClassVar[str] = "rasch"
    prior: float = 1.0  # trust in the mean difficulty of an item's skills; 1 is some 4 answers
    rounds: int = 3  # of ratings, then difficulties, for each step size

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A module of the right shape, to be filled by loading."""
        return RaschModule(vocabulary)

    def fit(
        self, train: pl.DataFrame, validation: pl.DataFrame, vocabulary: Vocabulary
    ) -> nn.Module:
        """Fit difficulties to the train split; the step size is the best on validation."""
        known, held_out = (_batches(table, vocabulary) for table in (train, validation))
        module = RaschModule(vocabulary)
        best, lowest = module.state_dict(), float("inf")
        for step in STEPS:
            module.step.fill_(step)
            for _ in range(self.rounds):
                _improve(module, known, self.prior)
            figure = _mean_loss(module, held_out)
            log.info("rasch: step %.2f, validation loss %.4f", step, figure)
            if figure < lowest:
                lowest = figure
                best = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        module.load_state_dict(best)
        return module.eval()


class RaschModule(nn.Module):
    """Batch → logits (B, T), or (B, Q); nothing in it is trained by gradients."""

    item_difficulty: Tensor  # (items,) logits
    skill_difficulty: Tensor  # (skills,) logits, mean over its items; UNSEEN: over the population
    step: Tensor  # () logits

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.register_buffer("item_difficulty", torch.zeros(len(vocabulary.items) + 2))
        self.register_buffer("skill_difficulty", torch.zeros(len(vocabulary.skills) + 2))
        self.register_buffer("step", torch.tensor(STEPS[0]))

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        if batch.keeps:
            return kept(anchored(self, batch), batch.counts.new_zeros(len(batch.items), 0))
        steps = batch.items.shape[1]
        skills = with_unseen(batch.skills)
        if batch.questions is not None:
            skills = _side_by_side(skills, with_unseen(batch.questions.skills))
        tagged = (skills != PADDING).float()
        share = tagged / tagged.sum(dim=-1, keepdim=True)
        difficulty = self.difficulty(batch)
        slots, slot = _slots(skills)
        ratings, met = torch.zeros(slots), torch.zeros(slots)  # of each skill of each learner
        overall = torch.zeros(len(skills))  # (B,) rating over all skills
        logits = torch.empty_like(difficulty)
        given = batch.mask.float()
        for t in range(steps):
            now = slot[:, t]  # (B, K)
            logit = overall + (ratings[now] * share[:, t]).sum(dim=-1) - difficulty[:, t]
            logits[:, t] = logit
            surprise = self.step * (batch.correct[:, t] - torch.sigmoid(logit)) * given[:, t]
            overall = overall + surprise / (1.0 + FATIGUE * t)
            moves = surprise[:, None] * tagged[:, t] / (1.0 + FATIGUE * met[now])
            ratings.index_add_(0, now.flatten(), moves.flatten())
            met.index_add_(0, now.flatten(), tagged[:, t].flatten())
        if batch.questions is None:
            return logits
        rated = (ratings[slot[:, steps:]] * share[:, steps:]).sum(dim=-1)
        return overall[:, None] + rated - self.difficulty(batch.questions)

    def anchor(self, answers: Tensor) -> Tensor:
        """Of so many answers, how many need not be told again: every rating follows from all."""
        return torch.zeros_like(answers)

    def difficulty(self, batch: Batch | Questions) -> Tensor:
        """Of each question, (B, T) logits; an unseen item is as hard as its skills."""
        known = batch.items > UNSEEN
        return torch.where(known, self.item_difficulty[batch.items], self.expected(batch))

    def expected(self, batch: Batch | Questions) -> Tensor:
        """Mean difficulty of the skills of each question, (B, T) logits."""
        skills = with_unseen(batch.skills)
        tagged = (skills != PADDING).float()
        return (self.skill_difficulty[skills] * tagged).sum(dim=-1) / tagged.sum(dim=-1)


def with_unseen(skills: Tensor) -> Tensor:
    """Skills (B, T, K) in which an empty set holds UNSEEN."""
    empty = (skills == PADDING).all(dim=-1)
    return torch.cat([skills[..., :1].masked_fill(empty[..., None], UNSEEN), skills[..., 1:]], -1)


def _side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """Skills (B, T, K) and (B, Q, J) as (B, T + Q, max(K, J))."""
    width = max(left.shape[-1], right.shape[-1])
    return torch.cat([pad(x, (0, width - x.shape[-1])) for x in (left, right)], dim=1)


def _slots(skills: Tensor) -> tuple[int, Tensor]:
    """How many pairs of learner and skill there are, and the pair of each tag, (B, T, K).

    One number per pair that occurs, since a learner meets few of all skills.
    """
    pairs = skills + torch.arange(len(skills))[:, None, None] * (int(skills.max()) + 1)
    distinct, slot = torch.unique(pairs, return_inverse=True)
    return len(distinct), slot


def _batches(table: pl.DataFrame, vocabulary: Vocabulary) -> list[Batch]:
    histories = examples(table, vocabulary)
    groups = batches([cost(history) for history in histories], BATCH_COST)
    return [collate([histories[i] for i in group], vocabulary) for group in groups]


def _improve(module: RaschModule, known: Sequence[Batch], prior: float) -> None:
    """One Newton step of all difficulties, given the ratings that follow from them.

    An item is drawn to the mean of its skills, a skill to that of the population.
    """
    error, curve, hope, seen = (torch.zeros_like(module.item_difficulty) for _ in range(4))
    for batch in known:
        items, scored = batch.items[batch.mask], batch.scored[batch.mask].float()
        chance = torch.sigmoid(module(batch)[batch.mask])
        error.index_add_(0, items, (chance - batch.correct[batch.mask]) * scored)
        curve.index_add_(0, items, chance * (1.0 - chance) * scored)
        hope.index_add_(0, items, module.expected(batch)[batch.mask])
        seen.index_add_(0, items, torch.ones_like(chance))
    expected = hope / seen.clamp(min=1.0)
    newton = (error - prior * (module.item_difficulty - expected)) / (curve + prior)
    module.item_difficulty += newton.clamp(-2.0, 2.0)
    _average_skills(module, known, prior)


def _average_skills(module: RaschModule, known: Sequence[Batch], prior: float) -> None:
    """Set each skill to the mean difficulty of its questions, shrunk to that of all."""
    total, seen = (torch.zeros_like(module.skill_difficulty) for _ in range(2))
    for batch in known:
        tagged = (batch.skills != PADDING).float()
        difficulty = module.item_difficulty[batch.items][..., None] * tagged
        total.index_add_(0, batch.skills.flatten(), difficulty.flatten())
        seen.index_add_(0, batch.skills.flatten(), tagged.flatten())
    population = total.sum() / seen.sum().clamp(min=1.0)
    module.skill_difficulty.copy_((total + prior * population) / (seen + prior))


def _mean_loss(module: RaschModule, held_out: Sequence[Batch]) -> float:
    """Cross-entropy per scored answer, in nats."""
    total = sum(float(loss(module(batch), batch)) for batch in held_out)
    return total / max(sum(float(weight(batch)) for batch in held_out), 1.0)
