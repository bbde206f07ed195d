"""A weighted sum of what is known (ridge, lasso and logistic regression; Zou and Hastie 2005).

Choose it where every figure must be explained by hand, or for very few rows.
The penalty is chosen by cross-validation inside the training rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_jobs.families.tabular.batch import Batch, Outputs
from ray_jobs.families.tabular.networks.encoding import OneHot
from ray_jobs.families.tabular.networks.fitting import Known
from ray_jobs.families.tabular.vocabulary import Vocabulary
from ray_jobs.recipe import within

PENALTIES = np.logspace(-3, 2, 11)  # of logistic regression, inverse
MOST_STEPS = 5000  # of a solver


@dataclass(frozen=True)
class Linear:
    """Settings of the linear model."""

    name: ClassVar[str] = "linear"
    lasso: float = 0.9  # share of the penalty on absolute weights, of numbers as label

    def __post_init__(self) -> None:
        """Raises UsageError for settings of which no model can be made."""
        within(self, lasso=(0.01, 1))

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        """A module of the right shape, to be filled by loading."""
        return LinearModule(vocabulary)

    def fit(
        self, train: pl.DataFrame, validation: pl.DataFrame, vocabulary: Vocabulary
    ) -> nn.Module:
        """Fit all rows; the penalty is the best over inner folds."""
        known = Known.of([train, validation], vocabulary)
        return self.fitted(known, vocabulary, self.chosen(known, vocabulary))

    def chosen(self, known: Known, vocabulary: Vocabulary) -> float:
        """The penalty that predicts best over inner folds: of weights, or its inverse."""
        from sklearn.linear_model import ElasticNetCV, LogisticRegressionCV

        inputs, folds = _encoded(vocabulary, known), known.folds()
        if vocabulary.target.kind == "number":
            model = ElasticNetCV(l1_ratio=self.lasso, cv=folds, max_iter=MOST_STEPS)
            _solved(model, inputs, known.target)
            return float(model.alpha_)
        model = LogisticRegressionCV(
            Cs=PENALTIES,
            cv=folds,
            scoring="neg_log_loss",
            max_iter=MOST_STEPS,
            use_legacy_attributes=False,
        )
        _solved(model, inputs, known.target.astype(int))
        return float(model.C_)

    def fitted(self, known: Known, vocabulary: Vocabulary, chosen: float) -> nn.Module:
        """The sum that fits rows at hand best under a chosen penalty."""
        from sklearn.linear_model import ElasticNet, LogisticRegression

        target = known.target
        if vocabulary.target.kind == "number":
            model = ElasticNet(alpha=chosen, l1_ratio=self.lasso, max_iter=MOST_STEPS)
        else:
            model = LogisticRegression(C=chosen, max_iter=MOST_STEPS)
            target = target.astype(int)
        _solved(model, _encoded(vocabulary, known), target)
        module = LinearModule(vocabulary)
        module.weight.copy_(torch.from_numpy(np.atleast_2d(model.coef_)))
        module.bias.copy_(torch.from_numpy(np.atleast_1d(model.intercept_)))
        return module.eval()


class LinearModule(nn.Module):
    """Batch → Outputs with one head; nothing in it is trained by gradients."""

    weight: Tensor  # (C or 1, D)
    bias: Tensor  # (C or 1,)

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.encoding = OneHot(vocabulary)
        classes = len(vocabulary.target.outcomes) if vocabulary.target.kind == "classes" else 1
        self.register_buffer("weight", torch.zeros(classes, self.encoding.width))
        self.register_buffer("bias", torch.zeros(classes))

    def forward(self, batch: Batch) -> Outputs:
        values = self.encoding(batch) @ self.weight.T + self.bias  # (B, C or 1)
        return Outputs(values[:, None] if batch.kind == "classes" else values)


def _encoded(vocabulary: Vocabulary, known: Known) -> NDArray[np.float64]:
    """(N, D) inputs of the sum."""
    values: NDArray[np.float64] = OneHot(vocabulary)(known.batch).double().numpy()
    return values


def _solved(model: Any, inputs: NDArray[np.float64], target: NDArray[Any]) -> None:
    """Fit a model of scikit-learn."""
    with warnings.catch_warnings():
        # At the weakest penalties convergence is slow, and those are never chosen.
        warnings.simplefilter("ignore")
        model.fit(inputs, target)
