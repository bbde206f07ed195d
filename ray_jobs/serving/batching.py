"""Micro-batches by cost: whoever arrives while the model is busy goes together next.

Nobody waits for others who may come, so a lone request pays nothing for batching;
but who has sent already is let in first. A batch is filled up to a cost in positions,
not to a count. What takes the model a moment is not worth a change of threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ray_jobs.artifact import Artifact
from ray_jobs.predictor import predict
from ray_jobs.serving.meters import Meters
from ray_jobs.serving.problem import Problem

MOMENT_S = 0.004  # of the model, for which nobody else could do much
TURNS = 3  # of the loop in which nobody came: between a request's bytes and its place here
MOST_COST = 2**21  # positions that may wait; about twenty seconds of the model


@dataclass(frozen=True)
class Waiting:
    """A request's examples, and who waits for their outcomes."""

    examples: Sequence[Any]
    cost: int
    done: asyncio.Future[list[Any]]


class Batcher:
    """One model, one thread that runs it, and a queue of who waits."""

    def __init__(
        self,
        model: Artifact,
        batch_cost: int = 16384,
        *,
        meters: Meters | None = None,
        most_cost: int = MOST_COST,
    ):
        self.model = model
        self.batch_cost = batch_cost
        self.meters = meters
        self.most_cost = most_cost
        self.waiting_cost = 0  # of the queue
        self.queue: deque[Waiting] = deque()
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self.runner: asyncio.Task[None] | None = None
        # What the last batch of like cost took, by the bits of the cost.
        self.seconds: dict[int, float] = {}

    async def outcomes(self, examples: Sequence[Any]) -> list[Any]:
        """Predictions of each example, computed together with whoever waits as well.

        What is dearer than a batch goes in pieces, each at the end of the queue,
        so that one huge request does not hold up the small ones.
        """
        outcomes: list[Any] = []
        for piece, cost in self._pieces(examples):
            outcomes += await self._enqueued(piece, cost)
        return outcomes

    async def _enqueued(self, examples: Sequence[Any], cost: int) -> list[Any]:
        if self.waiting_cost > self.most_cost:
            detail = "too many wait for this replica's model already; ask again in a second"
            raise Problem(503, detail, headers=((b"retry-after", b"1"),))
        self.waiting_cost += cost
        done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.queue.append(Waiting(examples, cost, done))
        if self.runner is None or self.runner.done():
            self.runner = asyncio.create_task(self._run())
        return await done

    def _pieces(self, examples: Sequence[Any]) -> Iterator[tuple[Sequence[Any], int]]:
        start, cost = 0, 0
        for i, example in enumerate(examples):
            more = self.model.family.cost(example)
            if i > start and cost + more > self.batch_cost:
                yield examples[start:i], cost
                start, cost = i, 0
            cost += more
        if start < len(examples):
            yield examples[start:], cost

    async def _run(self) -> None:
        while self.queue:
            await self._arrivals()
            if not (group := self._next()):
                continue  # all of them left
            examples = [e for waiting in group for e in waiting.examples]
            if self.meters:
                self.meters.batches.append(len(examples))
            try:
                outcomes = await self._predicted(examples, sum(one.cost for one in group))
            except Exception as error:  # noqa: BLE001 - each caller gets it; the runner lives on
                _fail(group, error)
            else:
                _tell(group, outcomes)

    async def _arrivals(self) -> None:
        """Let in who stands at the door, and out who has been answered."""
        await asyncio.sleep(0)
        quiet = 0
        while quiet < TURNS and self.waiting_cost < self.batch_cost:
            before = len(self.queue)
            await asyncio.sleep(0)
            quiet = 0 if len(self.queue) > before else quiet + 1

    async def _predicted(self, examples: Sequence[Any], cost: int) -> list[Any]:
        """Predictions, here where they take a moment, else in the model's thread."""
        if self.seconds.get(cost.bit_length(), MOMENT_S) < MOMENT_S:
            return self._timed(examples, cost)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, self._timed, examples, cost)

    def _timed(self, examples: Sequence[Any], cost: int) -> list[Any]:
        begin = time.perf_counter()
        outcomes = predict(self.model, examples)
        self.seconds[cost.bit_length()] = time.perf_counter() - begin
        return outcomes

    def _next(self) -> list[Waiting]:
        """Who goes together now; empty when nobody waits any more."""
        group: list[Waiting] = []
        cost = 0
        while self.queue and (not group or cost + self.queue[0].cost <= self.batch_cost):
            waiting = self.queue.popleft()
            self.waiting_cost -= waiting.cost
            if not waiting.done.done():  # a client that left has cancelled it
                group.append(waiting)
                cost += waiting.cost
        return group


def _tell(group: Sequence[Waiting], outcomes: Sequence[Any]) -> None:
    start = 0
    for waiting in group:
        end = start + len(waiting.examples)
        if not waiting.done.done():
            waiting.done.set_result(list(outcomes[start:end]))
        start = end


def _fail(group: Sequence[Waiting], error: Exception) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
