"""The demo's data: a simulated school, and the best that any model could do on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ray_jobs.families.knowledge.bayes import filtered
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import Truth, World

TRUTH = "truth.json"

# Large enough that the interval of a gain over the baseline is far narrower than the gain.
SCHOOL = World(learners=3000, items=400)


def sample(folder: Path, seed: int) -> str:
    """Simulate a school's log below a folder; returns what to hand to `--data`."""
    truth = simulate(replace(SCHOOL, seed=seed), folder / "logs")
    truth.save(folder / TRUTH)  # beside the logs, where ingestion does not look
    return str(folder / "logs")


def ceiling(folder: Path, table: pl.DataFrame) -> NDArray[np.float64]:
    """Probability of each row of a clean table by the Bayes filter that knows the world.

    It knows items and dynamics but sees only the same histories: no model can
    be expected to do better.
    """
    return filtered(Truth.load(folder / TRUTH), table)
