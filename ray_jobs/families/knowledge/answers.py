"""Answers laid end to end, as what counts them reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answers:
    """The answers of several learners laid end to end: N answers, S skills in all."""

    learner: NDArray[np.int64]  # (N,) ascending
    step: NDArray[np.int64]  # (N,) 0.. within the learner
    items: NDArray[np.int64]  # (N,)
    correct: NDArray[np.float32]  # (N,)
    times: NDArray[np.float64]  # (N,) unix seconds, NaN when unknown
    skills: NDArray[np.int64]  # (S,) a set per answer, so no repeats within one
    skill_counts: NDArray[np.int64]  # (N,)
    owner: NDArray[np.int64]  # (S,) the answer that a skill belongs to, ascending
