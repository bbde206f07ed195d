"""What is predicted: one of two outcomes, one of several classes, or a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A kind of target, and the names of its outcomes in the order of predictions.

    Of two outcomes the probability of the second is told; a number has no outcomes.
    """

    kind: str  # "binary", "classes" or "number"
    outcomes: tuple[str, ...] = ()
