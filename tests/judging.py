"""Evaluations for tests: answers judged as the pipeline judges them, from a frame alone."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ray_jobs.evaluation import Evaluation, evaluate
from ray_jobs.target import Target

ANSWERS = Target("binary", ("wrong answers", "right answers"))


def judged(
    rows: pl.DataFrame, *, prediction: str = "prediction", slices: Sequence[str] = ()
) -> Evaluation:
    """One column of probabilities of a frame with `group` and `target`."""
    return evaluate(rows, rows[prediction].to_numpy(), ANSWERS, slices=slices)
