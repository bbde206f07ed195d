"""Whoever asks is answered, in turn and for themselves, however many ask, leave or fail at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.predictor import batches
from ray_jobs.serving import batching
from ray_jobs.serving.batching import MOMENT_S, Batcher
from ray_jobs.training.order import epoch_batches

BATCH_COST = 20


@dataclass(frozen=True)
class Example:
    who: int
    place: int  # in its request
    cost: int

    @property
    def answer(self) -> str:
        return f"{self.who}.{self.place}"


@dataclass
class Model:
    """Answers each example with its name; a batch that holds a poisoned one fails."""

    poisoned: set[int] = field(default_factory=set)
    batches: list[list[Example]] = field(default_factory=list)
    vocabulary: None = None

    @property
    def family(self) -> Any:
        return SimpleNamespace(
            cost=lambda example: example.cost,
            collate=lambda examples, _: examples,
            outcomes=lambda outputs, _: outputs,
        )

    def module(self, batch: list[Example]) -> list[str]:
        self.batches.append(batch)
        if any(example.who in self.poisoned for example in batch):
            raise MemoryError
        return [example.answer for example in batch]

    def first(self, who: int) -> int:
        """The first batch that held something of somebody's."""
        return next(n for n, b in enumerate(self.batches) if any(e.who == who for e in b))


Visit = tuple[int, list[int], bool]  # ticks to wait, costs of what is asked, and whether one leaves
VISITS = st.lists(
    st.tuples(st.integers(0, 6), st.lists(st.integers(1, 30), max_size=6), st.booleans()),
    max_size=12,
)


async def visited(batcher: Batcher, requests: Sequence[list[Example]], visits: list[Visit]) -> Any:
    """What each visitor got: answers, an error, or the cancellation that it wished for."""

    async def visit(examples: list[Example], ticks: int) -> list[Any]:
        for _ in range(ticks):
            await asyncio.sleep(0)
        return await batcher.outcomes(examples)

    pairs = zip(requests, visits, strict=True)
    tasks = [asyncio.create_task(visit(examples, v[0])) for examples, v in pairs]
    for _ in range(4):
        await asyncio.sleep(0)
    for task, (_, _, leaves) in zip(tasks, visits, strict=True):
        if leaves:
            task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


@settings(deadline=None)
@given(VISITS, st.sets(st.integers(0, 11), max_size=2))
def test_everybody_is_answered_for_themselves_within_the_cost_of_a_batch(
    visits: list[Visit], poisoned: set[int]
) -> None:
    requests = [
        [Example(who, place, cost) for place, cost in enumerate(costs)]
        for who, (_, costs, _) in enumerate(visits)
    ]
    model = Model(poisoned)
    batcher = Batcher(model, BATCH_COST)  # type: ignore[arg-type]
    got = asyncio.run(visited(batcher, requests, visits))
    failed = {e.who for b in model.batches for e in b if any(x.who in poisoned for x in b)}
    for examples, (_, _, leaves), told in zip(requests, visits, got, strict=True):
        if isinstance(told, asyncio.CancelledError):
            assert leaves
        elif isinstance(told, MemoryError):
            assert examples[0].who in failed, "somebody else's failure"
        else:
            assert told == [example.answer for example in examples]
    computed = [example for batch in model.batches for example in batch]
    assert len(computed) == len(set(computed))
    for batch in model.batches:
        assert len(batch) == 1 or sum(example.cost for example in batch) <= BATCH_COST


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), max_size=12))
def test_who_came_first_is_begun_with_first(costs: list[list[int]]) -> None:
    model = Model()
    requests = [[Example(w, p, c) for p, c in enumerate(some)] for w, some in enumerate(costs)]
    batcher = Batcher(model, BATCH_COST)  # type: ignore[arg-type]
    asyncio.run(visited(batcher, requests, [(0, some, False) for some in costs]))
    begun = [model.first(who) for who in range(len(costs))]
    assert begun == sorted(begun)


@settings(deadline=None)
@given(st.lists(st.integers(1, BATCH_COST), max_size=20))
def test_those_who_come_at_once_go_in_as_few_batches_as_their_order_allows(
    costs: list[int],
) -> None:
    model = Model()
    requests = [[Example(who, 0, cost)] for who, cost in enumerate(costs)]
    batcher = Batcher(model, BATCH_COST)  # type: ignore[arg-type]
    asyncio.run(visited(batcher, requests, [(0, [cost], False) for cost in costs]))
    fewest, room = 0, 0
    for cost in costs:
        fewest, room = (fewest, room - cost) if cost <= room else (fewest + 1, BATCH_COST - cost)
    assert len(model.batches) == fewest


def test_who_comes_some_turns_later_goes_with_the_first() -> None:
    model = Model()
    batcher = Batcher(model, 100)  # type: ignore[arg-type]
    visits: list[Visit] = [(2 * who, [1], False) for who in range(5)]
    requests = [[Example(who, 0, 1)] for who in range(5)]
    asyncio.run(visited(batcher, requests, visits))
    assert [len(batch) for batch in model.batches] == [5]


@dataclass
class Timed(Model):
    """A model that takes its time, and remembers where it ran."""

    seconds: float = 0.0
    threads: list[str] = field(default_factory=list)

    def module(self, batch: list[Example]) -> list[str]:
        self.threads.append(threading.current_thread().name)
        time.sleep(self.seconds)
        return super().module(batch)


async def ticks_meanwhile(batcher: Batcher) -> int:
    """How often others had their turn while a request was answered."""
    task, ticks = asyncio.create_task(batcher.outcomes([Example(0, 0, 1)])), 0
    while not task.done():
        await asyncio.sleep(0)
        ticks += 1
    await task
    return ticks


def test_others_have_their_turn_while_the_model_takes_long() -> None:
    async def asked() -> list[int]:
        batcher = Batcher(Timed(seconds=5 * MOMENT_S), BATCH_COST)  # type: ignore[arg-type]
        return [await ticks_meanwhile(batcher) for _ in range(3)]

    assert min(asyncio.run(asked())) > 10


def test_what_takes_a_moment_changes_no_thread_once_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "MOMENT_S", 60.0)  # however busy the machine is
    model = Timed()

    async def asked() -> None:
        batcher = Batcher(model, BATCH_COST)  # type: ignore[arg-type]
        for _ in range(3):
            await batcher.outcomes([Example(0, 0, 1)])

    asyncio.run(asked())
    first, *others = model.threads
    assert first.startswith("model")
    assert set(others) == {threading.main_thread().name}


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 40))
def test_batches_of_one_cost_are_as_few_as_there_can_be(n: int, cost: int, limit: int) -> None:
    fewest = -(-n // max(1, limit // cost))
    assert len(list(batches([cost] * n, limit))) == fewest
    order = epoch_batches(np.full(n, cost), batch_cost=limit, seed=1, epoch=0)
    assert len(order) == fewest
