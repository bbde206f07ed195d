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
from numpy.typing import NDArray
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
        if batch.kind == "classes":
            told = torch.log_softmax(told, dim=-2)
        return Outputs(told @ self.weights)

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
    if vocabulary.target.kind == "binary":
        told = [np.stack([1 - p, p], axis=1) for p in told]
    return _likeliest(np.log(np.clip(np.stack(told, axis=2), SMALLEST, 1.0)), target.astype(int))


def _likeliest(logs: Array, true: NDArray[Any]) -> Array:
    """Weights of (N, C, M) log probabilities under which the outcomes are likeliest.

    The mean of logarithms, made to sum to one over the outcomes (a logarithmic
    opinion pool; Genest and Zidek 1986), is as sure as its members where they agree.
    """
    from scipy.optimize import minimize

    rows, count = np.arange(len(true)), logs.shape[2]

    def loss(raw: Array) -> tuple[float, Array]:
        weights = softmax(raw)
        chances = softmax(logs @ weights)  # (N, C)
        slope = np.einsum("nc,ncm->m", chances, logs) - logs[rows, true].sum(axis=0)
        slope = weights * (slope - weights @ slope) / len(true)
        right = np.clip(chances[rows, true], SMALLEST, 1.0)
        value = -np.log(right).mean() - EVEN * np.log(weights).mean()
        return float(value), slope - EVEN * (1 / count - weights)

    return softmax(minimize(loss, np.zeros(count), jac=True, method="L-BFGS-B").x)


def softmax(values: Array) -> Array:
    """Along the last axis."""
    raised: Array = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: Array = raised / raised.sum(axis=-1, keepdims=True)
    return shares


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
