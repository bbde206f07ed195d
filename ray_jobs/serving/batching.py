"""Micro-batches by cost: whoever arrives while the model is busy goes together next.

Nobody waits when the model is idle, so a lone request pays nothing for
batching; a batch is filled up to a cost in positions, not to a count.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ray_jobs.artifact import Artifact
from ray_jobs.predictor import predict


@dataclass(frozen=True)
class Waiting:
    """A request's examples, and who waits for their outcomes."""

    examples: Sequence[Any]
    cost: int
    done: asyncio.Future[list[Any]]


class Batcher:
    """One model, one thread that runs it, and a queue of who waits."""

    def __init__(self, model: Artifact, batch_cost: int = 16384):
        self.model = model
        self.batch_cost = batch_cost
        self.queue: deque[Waiting] = deque()
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self.runner: asyncio.Task[None] | None = None

    async def outcomes(self, examples: Sequence[Any]) -> list[Any]:
        """Predictions of each example, computed together with whoever waits as well."""
        done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        cost = sum(self.model.family.cost(e) for e in examples)
        self.queue.append(Waiting(examples, cost, done))
        if self.runner is None or self.runner.done():
            self.runner = asyncio.create_task(self._run())
        return await done

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.queue:
            group = self._next()
            examples = [e for waiting in group for e in waiting.examples]
            try:
                outcomes = await loop.run_in_executor(self.thread, predict, self.model, examples)
            except Exception as error:  # noqa: BLE001 - each caller gets it; the runner lives on
                for waiting in group:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)
                continue
            start = 0
            for waiting in group:
                end = start + len(waiting.examples)
                if not waiting.done.done():  # a client that left has cancelled it
                    waiting.done.set_result(outcomes[start:end])
                start = end

    def _next(self) -> list[Waiting]:
        group = [self.queue.popleft()]
        cost = group[0].cost
        while self.queue and cost + self.queue[0].cost <= self.batch_cost:
            cost += self.queue[0].cost
            group.append(self.queue.popleft())
        return group
