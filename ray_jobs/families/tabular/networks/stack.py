"""Several models, each trusted as far as it predicts rows it never saw (van der Laan et al. 2007).

The default: about as good as the best of its members on each table, and often
better. Weights are not negative and sum to one; inner folds tell them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ray_jobs.families.tabular.batch import Batch, Outputs
from ray_jobs.families.tabular.networks.boosting import Boosting
from ray_jobs.families.tabular.networks.fitting import Known, out_of_fold
from ray_jobs.families.tabular.networks.forest import Forest
from ray_jobs.families.tabular.networks.linear import Linear
from ray_jobs.families.tabular.networks.trees import Trees
from ray_jobs.families.tabular.vocabulary import Vocabulary
from ray_jobs.recipe import within
from ray_jobs.target import Array

MEMBERS: dict[str, Any] = {
    "linear": Linear(),
    "boosting": Boosting(),
    "boosting_larger": Boosting(leaves=15, rate=0.02, columns=0.5),
    "forest": Forest(),
    "forest_every_column": Forest(columns=1.0),
}
STEPS = 500  # of the weights; each raises the likelihood
EVEN = 0.03  # of the rows' weight is that of a belief that all are equally good
SMALLEST = 1e-6  # probability, so that logits stay finite


@dataclass(frozen=True)
class Stack:
    """Settings of the stack."""

    name: ClassVar[str] = "stack"
    repeats: int = 2  # times that all rows are divided into folds, to tell the weights

    def __post_init__(self) -> None:
        """Raises UsageError for settings of which no model can be made."""
        within(self, repeats=(1, inf))

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A module of the right shape, to be filled by loading."""
        members = {name: spec.build(vocabulary) for name, spec in MEMBERS.items()}
        return StackModule(members)

    def fit(
        self, train: pl.DataFrame, validation: pl.DataFrame, vocabulary: Vocabulary
    ) -> nn.Module:
        """Fit each member to all rows, and weigh them by their predictions out of fold."""
        divided = Known.divided([train, validation], vocabulary, self.repeats)
        known = divided[0]
        members: dict[str, nn.Module] = {}
        told: list[Array] = []
        for name, spec in MEMBERS.items():
            fit = partial(spec.fitted, vocabulary=vocabulary, chosen=spec.chosen(known, vocabulary))
            members[name] = fit(known)
            told.append(np.mean([out_of_fold(part, fit) for part in divided], axis=0))
        module = StackModule(members)
        module.weights.copy_(torch.from_numpy(weighted(told, known.target, vocabulary)))
        return module.eval()


class StackModule(nn.Module):
    """Batch → Outputs with one head."""

    weights: Tensor  # (members,)

    def __init__(self, members: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleDict(dict(members))
        self.register_buffer("weights", torch.full((len(members),), 1 / len(members)))

    def forward(self, batch: Batch) -> Outputs:
        told = torch.stack([member(batch).values for member in self.members.values()], dim=-1)
        if batch.kind == "number":
            return Outputs(told @ self.weights)
        if batch.kind == "binary":
            return Outputs(torch.logit(torch.sigmoid(told) @ self.weights, eps=SMALLEST))
        chances = torch.softmax(told, dim=-2) @ self.weights
        return Outputs(chances.clamp(min=SMALLEST).log())

    def files(self) -> dict[str, bytes]:
        trees = {n: m for n, m in self.members.items() if isinstance(m, Trees)}
        return {f"{n}.{file}": data for n, m in trees.items() for file, data in m.files().items()}

    def load_files(self, files: Mapping[str, bytes]) -> None:
        for name, member in self.members.items():
            if isinstance(member, Trees):
                start = f"{name}."
                own = {f.removeprefix(start): d for f, d in files.items() if f.startswith(start)}
                member.load_files(own)


def weighted(told: list[Array], target: Array, vocabulary: Vocabulary) -> Array:
    """(M,) weights of M models' predictions of rows they never saw, (N,) or (N, C) each."""
    if vocabulary.target.kind == "number":
        return _least_squares(np.stack(told, axis=1), target)
    true = target.astype(int)
    if vocabulary.target.kind == "binary":
        chances = np.stack([np.where(true == 1, p, 1 - p) for p in told], axis=1)
    else:
        chances = np.stack([p[np.arange(len(p)), true] for p in told], axis=1)
    return _likeliest(np.clip(chances, SMALLEST, 1.0))


def _likeliest(chances: Array) -> Array:
    """Weights of a mixture under which the outcomes are likeliest (expectation-maximisation)."""
    weights = np.full(chances.shape[1], 1 / chances.shape[1])
    for _ in range(STEPS):
        shares = chances * weights
        told = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        weights = (told + EVEN / len(told)) / (1 + EVEN)
    return weights


def _least_squares(told: Array, target: Array) -> Array:
    """Weights under which the squared error is least, drawn towards even ones."""
    from scipy.optimize import nnls

    count, scale = told.shape[1], np.sqrt(len(target)) * (target.std() or 1.0)
    even, sum_to_one = np.sqrt(EVEN) * scale, 1e3 * scale
    centre = target.mean()
    rows = np.vstack([told - centre, even * np.eye(count), np.full(count, sum_to_one)])
    wanted = np.concatenate([target - centre, np.full(count, even / count), [sum_to_one]])
    weights: Array = nnls(rows, wanted)[0]
    shares: Array = weights / weights.sum()
    return shares
