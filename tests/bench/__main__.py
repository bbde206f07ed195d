"""`make bench`: what like lengths are worth, what workers hold and cost, what preparing data costs.

And how fast the networks learn beside those of the toolkits, and services answer beside
LitServe. The others alone: `python -m tests.bench.memory`, `.efficiency`, `.preparing`,
`.padded`, `.serving`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_jobs.families import family
from ray_jobs.families.knowledge.networks import Lstm
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import World
from ray_jobs.predictor import batches
from tests.bench import efficiency, memory, padded, preparing, serving

ROUNDS = 5
BATCH_COST = 8192  # positions
KIND = family("knowledge")


def main() -> None:
    """Print one line per comparison: what, the ratio of the medians, both figures."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        table = simulate(World(), Path(folder)).table()
    vocabulary = KIND.vocabulary([table])
    histories = KIND.examples(table, vocabulary)
    network = Lstm(width=128, neighbours=0).build(vocabulary)
    answers = sum(KIND.cost(h) for h in histories)

    def trained(groups: Iterable[Iterable[int]]) -> Callable[[], None]:
        todo = list(groups)

        def work() -> None:
            for indices in todo:
                batch = KIND.collate([histories[i] for i in indices], vocabulary)
                KIND.loss(network(batch), batch).backward()  # type: ignore[no-untyped-call]
                network.zero_grad()

        return work

    order = np.random.default_rng(0).permutation(len(histories)).tolist()
    size = max(1, BATCH_COST // max(KIND.cost(h) for h in histories))
    shuffled = [order[i : i + size] for i in range(0, len(order), size)]
    alike = list(batches([KIND.cost(h) for h in histories], BATCH_COST))
    _compare(
        "training answers/s: like lengths / shuffled", trained(alike), trained(shuffled), answers
    )


def _compare(what: str, new: Callable[[], None], old: Callable[[], None], count: int) -> None:
    """Run both in turn, so that a noisy machine disturbs them alike."""
    pairs: list[tuple[float, float]] = [(_seconds(new), _seconds(old)) for _ in range(ROUNDS)]
    ratio = statistics.median(o / n for n, o in pairs)
    rates: list[Any] = [count / statistics.median(times) for times in zip(*pairs, strict=True)]
    print(f"{what}: {ratio:.2f} ({rates[0]:,.0f} / {rates[1]:,.0f})")


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
    memory.main()
    efficiency.main()
    preparing.main()
    padded.main()
    serving.main()
