"""In which order examples are learnt: a function of costs, seed and epoch, of nothing else.

The number of workers is no argument here, so one worker and twenty take the
same steps; each only computes its share of every batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LENGTH_NOISE = 0.05  # how far apart in length, relatively, two examples of a batch may lie


def epoch_batches(
    costs: NDArray[np.int64], *, batch_cost: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Indices of the examples of each global batch of one epoch; every example once.

    Examples of like cost come together, since a batch is padded to its dearest;
    noise in that order changes an example's company from epoch to epoch.
    """
    random = np.random.default_rng([_positive(seed), epoch])
    # The offset lets the shortest mix too: 5 % of one answer is no answer.
    noisy = (costs + 2) * random.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(costs))
    batches = filled(np.argsort(noisy, kind="stable"), costs, batch_cost)
    return [batches[i] for i in random.permutation(len(batches))]


def filled(
    order: NDArray[np.int64], costs: NDArray[np.int64], batch_cost: int
) -> list[NDArray[np.int64]]:
    """An order cut into batches that cost, padded to their dearest, no more than they may.

    An example dearer than that is a batch of its own.
    """
    ends: list[int] = []
    begin = dearest = 0
    for place, cost in enumerate(memoryview(costs[order])):  # type: ignore[arg-type]
        dearest = max(dearest, cost)
        if place > begin and (place + 1 - begin) * dearest > batch_cost:
            ends.append(place)
            begin, dearest = place, cost
    return np.split(order, ends) if len(order) else []


def share(indices: NDArray[np.int64], rank: int, world: int) -> NDArray[np.int64]:
    """What one worker computes of a global batch; may be empty."""
    return indices[rank::world]


def step_seed(seed: int, *, epoch: int, step: int, rank: int) -> int:
    """Seed of the random numbers of one step on one worker, such as its dropout.

    Stateless, so a resumed run draws what an undisturbed one would have drawn.
    """
    entropy = np.random.SeedSequence([_positive(seed), epoch, step, rank])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _positive(seed: int) -> int:
    return seed % 2**63
