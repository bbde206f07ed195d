"""Batches are made ahead and come in order, and the time that goes into them is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from ray_jobs.training.clock import Clock
from ray_jobs.training.feed import ahead


def test_what_is_made_comes_in_the_order_it_was_asked_for() -> None:
    assert list(ahead(lambda n: n * n, range(20))) == [n * n for n in range(20)]
    assert list(ahead(lambda n: n, [])) == []


def test_so_many_are_made_ahead_and_no_more() -> None:
    made: list[int] = []
    third = threading.Event()

    def make(n: int) -> int:
        made.append(n)
        if n == 2:
            third.set()
        return n

    feed = ahead(make, range(10), depth=2)
    assert next(feed) == 0
    assert third.wait(10), "nothing is made before it is asked for"
    assert made == [0, 1, 2]
    feed.close()  # type: ignore[attr-defined]


def test_what_goes_wrong_is_raised_where_its_batch_would_have_come() -> None:
    def make(n: int) -> int:
        if n == 2:
            raise ValueError("the third")
        return n

    feed = ahead(make, range(5))
    assert [next(feed), next(feed)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(feed)


def test_a_feed_that_is_left_makes_nothing_more() -> None:
    made: list[int] = []
    feed = ahead(made.append, range(1000))
    next(feed)
    feed.close()  # type: ignore[attr-defined]
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count < 10


def test_the_clock_tells_waiting_exchanging_and_computing_apart() -> None:
    def slow() -> Iterator[int]:
        for n in range(2):
            time.sleep(0.1)
            yield n

    clock = Clock(torch.device("cpu"))
    for _ in clock.waited_for(slow()):
        time.sleep(0.02)
        with clock.exchanging():
            time.sleep(0.05)
    told = clock.figures()
    assert 0.2 <= told["data_seconds"] < 0.3
    assert 0.1 <= told["communication_seconds"] < 0.2
    assert 0.04 <= told["compute_seconds"] < 0.14
