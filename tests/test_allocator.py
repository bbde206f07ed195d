"""Promises of memory between steps: what one frees serves the next."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ray_jobs.training import allocator

STEPS = """
import resource
import torch
from ray_jobs.training import allocator
{first}
def step():
    torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
before = step()
for _ in range(20):
    after = step()
print(after - before)
"""


def pages_asked_for(first: str) -> int:
    """Of the system by twenty like steps, after a few."""
    script = STEPS.format(first=first)
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep memory in other ways")
def test_a_step_is_given_the_memory_that_the_last_one_freed() -> None:
    kept = pages_asked_for("assert allocator.keep_freed()")
    assert kept * 10 < pages_asked_for("")


def test_where_there_is_nothing_to_set_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed()
