"""A right answer is no setback: a monotonicity hint (Sill and Abu-Mostafa 1997) for networks.

Nothing in a recurrent or attentive network keeps one more right answer from lowering what is
thought of its skill. So of a few right answers, drawn anew in every step, the skill is asked
for just before and just after, and a fall between them is added to the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu

from ray_jobs.families.knowledge.batch import Batch, Questions
from ray_jobs.families.knowledge.counts import COLUMNS, ITEM_COLUMNS
from ray_jobs.families.knowledge.tallies import FAST, SLOW
from ray_jobs.families.knowledge.vocabulary import PADDING, UNSEEN

DRAWN = 128  # one of so many positions of a batch; with one of 8 levels fall as seldom


@dataclass(frozen=True)
class Probes:
    """The skills of N right answers, each asked for before the answer and after it."""

    rows: Tensor  # (2N,) int64: whose answers are seen
    steps: Tensor  # (2N,) int64: how many of them, below T
    questions: Questions  # (2N, 1)
    eligible: Tensor  # scalar float32: among how many right answers they were drawn

    def picked(self, steps: Tensor) -> Tensor:
        """Of rows (B, T, width), or T + 1 of them, those asked after: (2N, width)."""
        # As one index: the way back through two is one that autocast refuses to compile on a GPU.
        return steps.flatten(0, 1).index_select(0, self.rows * steps.shape[1] + self.steps)

    def penalty(self, levels: Tensor, weight: float) -> Tensor:
        """What the falls cost, as if all were asked for; `levels` (2N, 1) are logits."""
        before, after = levels.float().chunk(2)
        return weight * relu(before - after).sum() * self.eligible / max(len(before), 1)


def probes(batch: Batch) -> Probes:
    """Right answers to a question of one skill, all with the same chance; may be none."""
    lone = (batch.skills != PADDING).sum(dim=-1) == 1
    right = batch.mask & lone & (batch.correct == 1.0)
    right[:, -1] = False  # what follows it is not in the batch
    found = right.nonzero()
    drawn = torch.randperm(len(found), device=found.device)[: math.ceil(right.numel() / DRAWN)]
    rows, steps = found[drawn].unbind(dim=1)
    skills = batch.skills[rows, steps].amax(dim=-1, keepdim=True).repeat(2, 1)  # (2N, 1)
    before = batch.counts[rows, steps].clone()
    before[:, ITEM_COLUMNS] = 0.0
    return Probes(
        rows=rows.repeat(2),
        steps=torch.cat([steps, steps + 1]),
        questions=Questions(
            items=torch.full_like(skills, UNSEEN),
            skills=skills.unsqueeze(-1),
            counts=torch.cat([before, once_more_right(before)]).unsqueeze(1),
            mask=torch.ones_like(skills, dtype=torch.bool),
        ),
        eligible=right.sum().float(),
    )


def once_more_right(counts: Tensor) -> Tensor:
    """Counts (N, C) of a lone skill after a right answer to it, at the same time.

    What is counted by item stays as it is.
    """
    told = dict(zip(COLUMNS, counts.unbind(dim=1), strict=True))
    for of in ("skill", "all"):
        wins, fails = (told[f"{of}_{name}"].expm1() for name in ("wins", "fails"))
        given = (wins + fails).round()
        told[f"{of}_wins"] = (wins + 1.0).log1p()
        told[f"{of}_fast"] = _decayed(told[f"{of}_fast"], given, FAST)
        told[f"{of}_slow"] = _decayed(told[f"{of}_slow"], given, SLOW)
        told[f"{of}_last"] = torch.ones_like(wins)
        told[f"{of}_hours"] = torch.zeros_like(wins)
        if of == "skill":
            first = (given == 0).to(wins.dtype)
            told["all_skills"] = (told["all_skills"].expm1() + first).log1p()
            told["skill_gap"] = torch.full_like(wins, math.log1p(1.0))
    return torch.stack([told[name] for name in COLUMNS], dim=1)


def _decayed(mean: Tensor, given: Tensor, keep: float) -> Tensor:
    """A decayed mean of so many results after one more, of 1; see `counts._decayed`."""
    weight, more = ((1.0 - keep**n) / (1.0 - keep) + 1.0 for n in (given, given + 1.0))
    return (mean * weight * keep + 1.0) / more
