"""Logistic regression on item, skills and counts (PFA, Pavlik 2009; Best-LR, Gervet et al. 2020).

Choose it for a strong model in seconds, whose every term a person can read.
A right answer never lowers what it says of its skills: the signs of its terms are bound.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_jobs.families.knowledge.batch import Batch, Questions, collate, cost, examples
from ray_jobs.families.knowledge.counts import COLUMNS
from ray_jobs.families.knowledge.networks.question import anchored, kept
from ray_jobs.families.knowledge.networks.rasch import with_unseen
from ray_jobs.families.knowledge.vocabulary import PADDING, UNSEEN, Vocabulary
from ray_jobs.predictor import batches
from ray_jobs.recipe import within

if TYPE_CHECKING:
    from scipy.sparse import csr_array  # a replica predicts without it

log = logging.getLogger(__name__)

Vector = NDArray[np.float64]

ITEM_PRIORS = (0.5, 1.0, 2.0, 4.0)  # trust that an item is like its skills: the grid
WEAK = 1.0  # trust that any other term is 0; 1 is some 5 answers
BATCH_COST = 200_000  # positions
ROUNDS = 500  # of L-BFGS; some 90 are needed
PRECISION = 1e-8  # of the loss, relative, at which L-BFGS ends
CURVATURE = 0.2  # of the loss by a logit, about

# What a skill has of its own: how easy it is, and what its wins and fails are worth.
OF_SKILL = ("ease", "wins", "fails")
TOLD = (COLUMNS.index("skill_wins"), COLUMNS.index("skill_fails"))
GAPS = [column for column, name in enumerate(COLUMNS) if name.endswith("_gap")]
# What is counted by item alone says nothing of mastery, and may have any sign.
SIGNS = {"wins": 1, "fails": -1, "fast": 1, "slow": 1, "last": 1, "hours": -1, "gap": -1}
SIGNS |= {"skills": 1, "ease": 0, "usual": 0}


@dataclass(frozen=True)
class Logistic:
    """Settings of the logistic regression."""

    name: ClassVar[str] = "logistic"
    prior: float = 30.0  # trust that a skill is learnt no faster than others; 1 is some 5 answers

    def __post_init__(self) -> None:
        """Raises UsageError for a prior with which nothing can be fitted."""
        within(self, prior=(1e-3, inf))

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A module of the right shape, to be filled by loading."""
        return LogisticModule(vocabulary)

    def fit(
        self, train: pl.DataFrame, validation: pl.DataFrame, vocabulary: Vocabulary
    ) -> nn.Module:
        """Fit all terms to the train split; the trust in items is the best on validation."""
        module = LogisticModule(vocabulary)
        known, held_out = (_rows(table, vocabulary, module) for table in (train, validation))
        best = np.zeros(len(module.terms))
        lowest = inf
        for item_prior in ITEM_PRIORS:
            terms = _fitted(known, _Prior.of(module, item=item_prior, skill=self.prior))
            figure = _loss(held_out, terms)[0] / max(len(held_out.correct), 1)
            log.info("logistic: item prior %g, validation loss %.4f", item_prior, figure)
            if figure < lowest:
                best, lowest = terms, figure
        module.terms.copy_(torch.from_numpy(best))
        module.expect_of_the_unseen(known.told.sum(axis=0))
        return module.eval()


class LogisticModule(nn.Module):
    """Batch → logits (B, T), or (B, Q); nothing in it is trained by gradients."""

    terms: Tensor  # (P,): ease of each item, OF_SKILL of each skill, of counts, what is usual

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.items, self.skills = len(vocabulary.items) + 2, len(vocabulary.skills) + 2
        size = self.items + len(OF_SKILL) * self.skills + len(COLUMNS) + 1
        self.register_buffer("terms", torch.zeros(size))

    def forward(self, batch: Batch) -> Tensor:
        if batch.keeps:
            return kept(anchored(self, batch), batch.counts.new_zeros(len(batch.items), 0))
        ids, values = self.told(batch if batch.questions is None else batch.questions)
        return (self.terms[ids] * values).sum(dim=-1)

    def anchor(self, answers: Tensor) -> Tensor:
        """Of so many answers, how many need not be told again: it knows of their counts alone."""
        return answers

    def told(self, batch: Batch | Questions) -> tuple[Tensor, Tensor]:
        """Which terms speak of each answer, (B, T, M) ids, and how loudly, (B, T, M) float32."""
        skills = with_unseen(batch.skills)  # (B, T, K)
        tagged = (skills != PADDING).float()
        share = tagged / tagged.sum(dim=-1, keepdim=True)
        counts = settled(batch.counts)
        ids = [batch.items[..., None]]
        values = [torch.ones_like(share[..., :1])]
        for place, by in enumerate((None, *TOLD)):
            ids.append(self.items + len(OF_SKILL) * skills + place)
            values.append(share if by is None else share * counts[..., by, None])
        of_all = torch.arange(len(self.terms) - len(COLUMNS) - 1, len(self.terms))
        ids.append(of_all.expand(*skills.shape[:2], -1))
        values += [counts, torch.ones_like(counts[..., :1])]
        return torch.cat(ids, dim=-1), torch.cat(values, dim=-1)

    def names(self) -> list[str]:
        """What each term is about, in their order: `ease`, `wins`, `all_fast` and the like."""
        of_skills = list(OF_SKILL) * self.skills
        return ["item_ease"] * self.items + of_skills + [*COLUMNS, "usual"]

    def expect_of_the_unseen(self, heard: Vector) -> None:
        """A skill that was never practised is as the others are on average, by how much they were.

        `heard` (P,) says how much of each term there was in training.
        """
        of_skills = slice(self.items, self.items + len(OF_SKILL) * self.skills)
        own = self.terms[of_skills].view(self.skills, -1)
        share = torch.from_numpy(heard[of_skills]).to(own.dtype).view(self.skills, -1)
        if not share[UNSEEN].any() and share.any():
            own[UNSEEN] = (own * share).sum(dim=0) / share.sum(dim=0).clamp(min=1.0)


def settled(counts: Tensor) -> Tensor:
    """Counts (..., C) in which what was practised just before has no gap, as if never left."""
    counts = counts.clone()
    counts[..., GAPS] = (counts[..., GAPS] - math.log(2.0)).clamp(min=0.0)
    return counts


@dataclass(frozen=True)
class _Rows:
    """The N scored answers of a table."""

    told: csr_array  # (N, terms)
    correct: Vector  # (N,) 0..1


def _rows(table: pl.DataFrame, vocabulary: Vocabulary, module: LogisticModule) -> _Rows:
    from scipy.sparse import csr_array, vstack

    histories = examples(table, vocabulary)
    told, correct = [], []
    for group in batches([cost(history) for history in histories], BATCH_COST):
        batch = collate([histories[i] for i in group], vocabulary)
        ids, values = (x[batch.scored].numpy() for x in module.told(batch))
        starts = np.arange(len(ids) + 1) * ids.shape[1]
        part = (values.ravel().astype(np.float64), ids.ravel().astype(np.int32), starts)
        told.append(csr_array(part, shape=(len(ids), len(module.terms))))
        told[-1].eliminate_zeros()
        correct.append(batch.correct[batch.scored].double().numpy())
    return _Rows(vstack(told, format="csr"), np.concatenate(correct))


def _loss(rows: _Rows, terms: Vector) -> tuple[float, Vector]:
    """Summed cross-entropy in nats, and its slope along each term."""
    logits = rows.told @ terms
    small = np.exp(-np.abs(logits))
    loss = float((np.maximum(logits, 0.0) + np.log1p(small)).sum() - rows.correct @ logits)
    chance = np.where(logits > 0, 1.0, small) / (1.0 + small)
    return loss, rows.told.T @ (chance - rows.correct)


@dataclass(frozen=True)
class _Prior:
    """What is expected of the terms: to be 0, and of some not to be beyond it."""

    trust: Vector  # (P,)
    bounds: Vector  # (P, 2) lowest and highest

    @classmethod
    def of(cls, module: LogisticModule, *, item: float, skill: float) -> _Prior:
        trusts = {"item_ease": item, "wins": skill, "fails": skill}
        names = module.names()
        trust = np.array([trusts.get(name, WEAK) for name in names])
        signs = np.array([0 if "item" in name else SIGNS[name.split("_")[-1]] for name in names])
        lowest, highest = np.where(signs > 0, 0.0, -inf), np.where(signs < 0, 0.0, inf)
        return cls(trust, np.stack([lowest, highest], axis=1))


def _fitted(known: _Rows, prior: _Prior) -> Vector:
    """The likeliest terms, by bounded L-BFGS in which each is measured by its curvature."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    squares = known.told.power(2).sum(axis=0)
    scale = np.sqrt(CURVATURE * squares + prior.trust)
    answers = max(len(known.correct), 1)

    def objective(at: Vector) -> tuple[float, Vector]:
        terms = at / scale
        loss, slope = _loss(known, terms)
        pull = prior.trust * terms
        return (loss + 0.5 * pull @ terms) / answers, (slope + pull) / scale / answers

    # Its vectors are short: several threads would only wait for each other.
    with threadpool_limits(1, user_api="blas"):
        found: Any = minimize(
            objective,
            np.zeros_like(scale),
            jac=True,
            method="L-BFGS-B",
            bounds=prior.bounds * scale[:, None],
            options={"maxiter": ROUNDS, "ftol": PRECISION, "gtol": 0.0},
        )
    log.debug("logistic: %d rounds, %s", found.nit, found.message)
    result: Vector = found.x / scale
    return result
