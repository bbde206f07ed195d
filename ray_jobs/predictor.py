"""Examples in, predictions out: the one way from a model to its answers.

Evaluation, the gate, a replica, and MLflow's pyfunc all call this, so a figure
in a report is a figure of what is served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_jobs.artifact import Artifact
from ray_jobs.training.order import filled


def predict(
    model: Artifact, examples: Sequence[Any], *, batch_cost: int = 16384
) -> list[NDArray[np.float32]]:
    """Predictions of each example's scored rows, in the order given."""
    results: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(examples)
    for indices in _alike(model, examples, batch_cost):
        batch = model.family.collate([examples[i] for i in indices], model.vocabulary)
        with torch.inference_mode():
            outcomes = model.family.outcomes(model.module(batch), batch)
        for i, outcome in zip(indices, outcomes, strict=True):
            results[i] = outcome
    return results


def _alike(
    model: Artifact, examples: Sequence[Any], batch_cost: int
) -> Iterator[NDArray[np.int64]]:
    """Batches of examples of one kind each."""
    kinds = [type(example) for example in examples]
    for kind in dict.fromkeys(kinds):
        places = np.array([place for place, one in enumerate(kinds) if one is kind])
        for indices in batches([model.family.cost(examples[i]) for i in places], batch_cost):
            yield places[indices]


def batches(costs: Sequence[int] | NDArray[np.int64], batch_cost: int) -> list[NDArray[np.int64]]:
    """Group examples of like cost so that a batch, padding included, stays within a cost.

    An example dearer than that is a batch of its own.
    """
    dear = np.asarray(costs, np.int64)
    return filled(np.argsort(dear, kind="stable"), dear, batch_cost)
