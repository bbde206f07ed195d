"""Many deep trees, each of other rows and columns, averaged (random forest; Breiman 2001).

Choose it for few rows with much noise, where boosting learns the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import polars as pl
from torch import nn

from ray_jobs.families.tabular.networks.fitting import Known
from ray_jobs.families.tabular.networks.trees import Trees
from ray_jobs.families.tabular.vocabulary import Vocabulary
from ray_jobs.recipe import within


@dataclass(frozen=True)
class Forest:
    """Settings of the forest."""

    name: ClassVar[str] = "forest"
    trees: int = 300
    leaves: int = 255  # of a tree at most
    rows_of_leaf: int = 2  # at least
    columns: float = 0.7  # share of them that a split may look at
    rows: float = 0.632  # share of them that a tree is grown on

    def __post_init__(self) -> None:
        """Raises UsageError for settings of which no model can be made."""
        within(self, leaves=(2, inf), rows_of_leaf=(1, inf), trees=(1, inf), rows=(0.01, 0.99))
        within(self, columns=(0.01, 1))

    def build(self, _vocabulary: Vocabulary) -> nn.Module:
        """A module to be filled by loading."""
        return Trees()

    def fit(
        self, train: pl.DataFrame, validation: pl.DataFrame, vocabulary: Vocabulary
    ) -> nn.Module:
        """Grow the trees on all rows."""
        return self.fitted(Known.of([train, validation], vocabulary), vocabulary, self.trees)

    def chosen(self, known: Known, vocabulary: Vocabulary) -> int:  # noqa: ARG002
        """How many trees: no number of them learns by heart, so all that are asked for."""
        return self.trees

    def fitted(self, known: Known, vocabulary: Vocabulary, chosen: int) -> nn.Module:
        """As many trees as were chosen, of rows at hand."""
        module = Trees()
        parameters = {
            "boosting": "rf",
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.rows_of_leaf,
            "feature_fraction_bynode": self.columns,
            "bagging_fraction": self.rows,
            "bagging_freq": 1,
        }
        module.grow(known, vocabulary, parameters, chosen)
        return module.eval()
