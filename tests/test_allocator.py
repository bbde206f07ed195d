"""Promises of memory between steps: what one frees serves the next."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ray_jobs import allocator

STEPS = """
import resource
import threading
import torch
from ray_jobs import allocator
{first}
def step():
    torch.ones({numbers})
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps():
    for _ in range(10):
        step()
    before = step()
    for _ in range(20):
        after = step()
    print(after - before)
{run}
"""
BESIDE = "thread = threading.Thread(target=steps); thread.start(); thread.join()"


def pages_asked_for(
    first: str,
    run: str = "steps()",
    *,
    numbers: int = 10_000_000,
    environment: dict[str, str] | None = None,
) -> int:
    """Of the system by twenty like steps, after a few."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS.format(first=first, run=run, numbers=numbers)],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep memory in other ways")
def test_a_step_is_given_the_memory_that_the_last_one_freed() -> None:
    kept = pages_asked_for("assert allocator.keep_freed()")
    assert kept * 10 < pages_asked_for("")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep memory in other ways")
def test_so_is_a_step_in_a_thread_whose_blocks_are_larger_than_its_heaps() -> None:
    asked = [
        pages_asked_for("allocator.keep_freed()", BESIDE, numbers=20_000_000, environment=how)
        for how in (allocator.ONE_ARENA, {})
    ]
    assert asked[0] * 10 < asked[1]


def test_where_there_is_nothing_to_set_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed()
