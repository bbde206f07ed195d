"""Histories to tensors: the one collate function of training, evaluation and serving.

One function, so that the three cannot differ. Everything at step t is known
before the answer at step t, except `correct`, which a network must shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_jobs.families.knowledge.vocabulary import Vocabulary


@dataclass(frozen=True)
class History:
    """The answers of one learner in order of time, as ids; T answers, S skills in all."""

    items: NDArray[np.int64]  # (T,)
    skills: NDArray[np.int64]  # (S,) skill sets laid end to end
    skill_counts: NDArray[np.int64]  # (T,) how many of `skills` belong to each answer; may be 0
    correct: NDArray[np.float32]  # (T,) 0..1; what is asked for holds 0.
    scored: NDArray[np.bool_]  # (T,) True where the answer is trained on, evaluated or asked for
    times: NDArray[np.float64]  # (T,) unix seconds, NaN when unknown


@dataclass(frozen=True)
class Batch:
    """Histories of B learners, right-padded to T steps and K skills per answer."""

    items: Tensor  # (B, T) int64; padding holds 0
    skills: Tensor  # (B, T, K) int64; padding holds 0
    correct: Tensor  # (B, T) float32; padding holds 0.
    mask: Tensor  # (B, T) bool; True where an answer was given or is asked for
    scored: Tensor  # (B, T) bool; True where the loss and the metrics look
    counts: Tensor  # (B, T, C) float32; causal count features, of strictly earlier answers
