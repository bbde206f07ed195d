"""Which items keep company: fixed item vectors from the order in which learners met them.

Items within a few answers of each other get similar vectors: positive pointwise
mutual information (Levy & Goldberg 2014), factorised by a randomised
eigendecomposition (Halko et al. 2011). No answer is read, so none can leak.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_jobs.families.knowledge.batch import examples
from ray_jobs.families.knowledge.vocabulary import Vocabulary

REACH = 5  # answers apart that still count as company
NOTHING = 1e-12  # squared length of a vector that is only rounding noise
OVERSAMPLE = 16  # extra directions of the random subspace; dropped again
ROUNDS = 4  # power iterations


def item_vectors(train: Iterable[pl.DataFrame], vocabulary: Vocabulary, width: int) -> Tensor:
    """Vectors of the items of the train split, (V, width) float32; the others hold 0.

    Scaled to a root mean square of 1 over the items that have company. The same
    parts give the same vectors.
    """
    size = len(vocabulary.items) + 2
    together = _sparse(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), size)
    for table in train:
        together = together + _together([h.items for h in examples(table, vocabulary)], size)
    together = together.coalesce()
    vectors = _factors(_positive_information(together), width)
    vectors[:2] = 0.0
    used = vectors.square().sum(dim=1) > NOTHING
    vectors[~used] = 0.0
    scale = vectors[used].square().mean().sqrt() if used.any() else torch.tensor(1.0)
    return vectors / scale


def in_terms_of(before: Tensor, vectors: Tensor) -> Tensor:
    """Vectors (V, width) turned so that items lie where they lay before, as far as they can.

    Their directions come out of a factorisation in any turn (orthogonal Procrustes, Schönemann
    1966, by the items that had company both times).
    """
    own = vectors[: len(before)]
    both = own.any(dim=1) & before.any(dim=1)
    left, _, right = torch.linalg.svd(own[both].T @ before[both])
    turned: Tensor = vectors @ (left @ right)
    return turned


def _together(histories: list[NDArray[np.int64]], size: int) -> Tensor:
    """How often two items lie within REACH answers of each other, sparse (size, size)."""
    items = np.concatenate(histories)
    learner = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    pairs = []
    for apart in range(1, REACH + 1):
        left, right = items[:-apart], items[apart:]
        company = (learner[:-apart] == learner[apart:]) & (left != right)
        pairs += [left[company] * size + right[company], right[company] * size + left[company]]
    cells, times = np.unique(np.concatenate(pairs), return_counts=True)
    where = torch.from_numpy(np.stack([cells // size, cells % size]))
    return _sparse(where, torch.from_numpy(times).float(), size)


def _positive_information(together: Tensor) -> Tensor:
    """max(0, log p(a, b) / p(a) p(b)) of each pair, sparse."""
    row, column = together.indices()
    times = together.values()
    alone = torch.zeros(together.shape[0]).index_add_(0, row, times)
    information = torch.log(times * times.sum() / (alone[row] * alone[column])).clamp(min=0.0)
    return _sparse(together.indices(), information, together.shape[0])


def _sparse(where: Tensor, values: Tensor, size: int) -> Tensor:
    matrix = torch.sparse_coo_tensor(where, values, (size, size), check_invariants=True)
    return matrix.coalesce()


def _factors(matrix: Tensor, width: int) -> Tensor:
    """The leading eigenvectors of a symmetric sparse matrix, scaled by |eigenvalue| ** 0.5."""
    generator = torch.Generator().manual_seed(0)
    size = matrix.shape[0]
    rank = min(size, width + OVERSAMPLE)
    basis = torch.randn(size, rank, generator=generator)
    for _ in range(ROUNDS):
        basis, _ = torch.linalg.qr(matrix @ basis)
    values, rotation = torch.linalg.eigh(basis.T @ (matrix @ basis))
    leading = values.abs().argsort(descending=True)[:width]
    factors = (basis @ rotation[:, leading]) * values[leading].abs().sqrt()
    return torch.nn.functional.pad(factors, (0, width - factors.shape[1]))
