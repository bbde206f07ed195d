"""Trees that mend one another (gradient boosting; Friedman 2001, LightGBM; Ke et al. 2017).

The baseline that every other model of tables must face: strong on most of
them, in seconds. How many trees there are is decided over inner folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import lightgbm
import polars as pl
from torch import nn

from ray_jobs.families.tabular.networks.fitting import Known
from ray_jobs.families.tabular.networks.trees import Trees, dataset, settings
from ray_jobs.families.tabular.vocabulary import Vocabulary
from ray_jobs.recipe import within

PATIENCE = 30  # rounds without gain, then no more are tried


@dataclass(frozen=True)
class Boosting:
    """Settings of gradient boosting."""

    name: ClassVar[str] = "boosting"
    leaves: int = 7  # of a tree
    rate: float = 0.03  # how far each tree moves the prediction
    rows_of_leaf: int = 10  # at least
    columns: float = 0.7  # share of them that a tree may look at
    rows: float = 0.7  # share of them that a tree is grown on
    most: int = 1000  # trees

    def __post_init__(self) -> None:
        """Raises UsageError for settings of which no model can be made."""
        within(self, leaves=(2, inf), rate=(1e-6, 1), rows_of_leaf=(1, inf), most=(1, inf))
        within(self, columns=(0.01, 1), rows=(0.01, 1))

    def build(self, _vocabulary: Vocabulary) -> nn.Module:
        """A module to be filled by loading."""
        return Trees()

    def fit(
        self, train: pl.DataFrame, validation: pl.DataFrame, vocabulary: Vocabulary
    ) -> nn.Module:
        """Grow trees on all rows, as many as were best over inner folds."""
        known = Known.of([train, validation], vocabulary)
        return self.fitted(known, vocabulary, self.chosen(known, vocabulary))

    def fitted(self, known: Known, vocabulary: Vocabulary, chosen: int) -> nn.Module:
        """As many trees as were chosen, of rows at hand."""
        module = Trees()
        module.grow(known, vocabulary, self._parameters(), chosen)
        return module.eval()

    def chosen(self, known: Known, vocabulary: Vocabulary) -> int:
        """How many trees predict best what they did not see, over inner folds."""
        history = lightgbm.cv(
            {**settings(vocabulary), **self._parameters()},
            dataset(known, vocabulary),
            num_boost_round=self.most,
            folds=known.folds(),
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        losses: Any = next(iter(history.values()))  # mean over the folds, after each round
        return len(losses)

    def _parameters(self) -> dict[str, Any]:
        return {
            "num_leaves": self.leaves,
            "learning_rate": self.rate,
            "min_data_in_leaf": self.rows_of_leaf,
            "feature_fraction": self.columns,
            "bagging_fraction": self.rows,
            "bagging_freq": 1,
        }
