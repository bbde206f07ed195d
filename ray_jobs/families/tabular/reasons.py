"""Why a case is predicted so: how far each feature moves the prediction from a typical case.

Shapley values (Štrumbelj and Kononenko 2014; Lundberg and Lee 2017) by drawing:
features are told one after another in random orders, each order and its
reverse, and beside a typical case each time. The same request, the same reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ray_jobs.families.tabular.batch import Row, encoded
from ray_jobs.families.tabular.table import PREFIX
from ray_jobs.families.tabular.vocabulary import MISSING, Vocabulary
from ray_jobs.target import Array

ORDERS = 16  # of the features, half of them the reverse of the others


def variants(vocabulary: Vocabulary) -> int:
    """How many rows are predicted for the reasons of one."""
    return ORDERS * (_width(vocabulary) + 1)


def examples(told: dict[str, Any], vocabulary: Vocabulary) -> list[Row]:
    """Along each order: a typical case, then with one feature of this case after another."""
    numbers, codes = _encoded(told, vocabulary)
    made: list[Row] = []
    for order, typical_numbers, typical_codes in _walks(vocabulary):
        now_numbers, now_codes = typical_numbers.copy(), typical_codes.copy()
        made.append(Row(now_numbers.copy(), now_codes.copy(), 0.0, scored=True))
        for feature in order:
            if feature < len(numbers):
                now_numbers[feature] = numbers[feature]
            else:
                now_codes[feature - len(numbers)] = codes[feature - len(numbers)]
            made.append(Row(now_numbers.copy(), now_codes.copy(), 0.0, scored=True))
    return made


def reasons(
    told: dict[str, Any], outcomes: Sequence[NDArray[Any]], vocabulary: Vocabulary
) -> list[dict[str, Any]]:
    """The features by how far they move the prediction, the farthest first.

    Effects are of the probability of the second outcome of two, of the likeliest
    of several, or of the number; with that of a typical case they add up to it.
    """
    values = _values(outcomes, vocabulary)
    walks = values.reshape(ORDERS, -1)  # (ORDERS, features + 1)
    effects = np.zeros(_width(vocabulary))
    for walk, (order, _, _) in zip(walks, _walks(vocabulary), strict=True):
        effects[order] += np.diff(walk) / ORDERS
    names = [column.name for column in vocabulary.columns]
    found = [
        {"feature": n, "value": told.get(n), "effect": round(float(e), 6)}
        for n, e in zip(names, effects, strict=True)
    ]
    return sorted(found, key=lambda reason: -abs(reason["effect"]))


def _values(outcomes: Sequence[NDArray[Any]], vocabulary: Vocabulary) -> Array:
    """(ORDERS * (features + 1),) of what the reasons are about."""
    every = np.concatenate(outcomes).astype(np.float64)
    if vocabulary.target.kind != "classes":
        return every
    # Every walk ends at the case itself.
    likeliest: Array = every[:, every[-1].argmax()]
    return likeliest


def _walks(
    vocabulary: Vocabulary,
) -> list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]]:
    """Orders of the features, and a typical case to begin each from."""
    random = np.random.default_rng(0)
    orders = [random.permutation(_width(vocabulary)) for _ in range(ORDERS // 2)]
    ways = [way for order in orders for way in (order, order[::-1])]
    return [(way, *_typical(vocabulary, random)) for way in ways]


def _typical(
    vocabulary: Vocabulary, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A case drawn column by column, so that it is nobody's."""
    numbers = [
        np.nan if random.random() < n.missing else random.choice(n.quantiles)
        for n in vocabulary.numbers
    ]
    codes = []
    for category in vocabulary.categories:
        shares = np.array([category.missing, *category.shares])
        drawn = random.choice(len(shares), p=shares / shares.sum()) if shares.sum() else 0
        codes.append(MISSING if drawn == 0 else drawn + 1)
    return np.array(numbers, np.float32), np.array(codes, np.int64)


def _encoded(
    told: dict[str, Any], vocabulary: Vocabulary
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    numbers = {n.name: pl.Float64() for n in vocabulary.numbers}
    schema = numbers | {c.name: pl.String() for c in vocabulary.categories}
    table = pl.DataFrame([told], schema=schema).rename(lambda name: PREFIX + name)
    made = encoded(table, vocabulary)
    return made[0][0], made[1][0]


def _width(vocabulary: Vocabulary) -> int:
    return len(vocabulary.columns)
