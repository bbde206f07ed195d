"""Each spec, trained as a recipe trains it, predicts real answers as well as is reported.

Protocol N on the ASSIST2009 events and the split they come with, every tenth
train learner held out for validation. Takes minutes, so `make test-all` runs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from ray_jobs.artifact import Artifact
from ray_jobs.families import family
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.metrics import KINDS
from ray_jobs.predictor import predict
from ray_jobs.recipe import Budget
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.team import Team
from tests.assist_parts import DATA, splits

METRICS = KINDS["binary"].metrics

KNOWLEDGE = family("knowledge")


def trained(spec: Any, train: pl.DataFrame, validation: pl.DataFrame, words: Any) -> nn.Module:
    if hasattr(spec, "fit"):
        fitted = spec.fit(train, validation, words)
        assert isinstance(fitted, nn.Module)
        return fitted
    known, held_out = (KNOWLEDGE.examples(table, words) for table in (train, validation))
    budget = Budget()
    lesson = Lesson(KNOWLEDGE, words, known, held_out, budget, seed=0)
    torch.manual_seed(0)
    state = State.of(spec.prepare([train], words), budget, Team())
    run(state, lesson, Team(), lambda _, figures: print(figures))
    state.module.load_state_dict(state.best)
    return state.module.eval()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the ASSIST2009 events beside the checkout")
@pytest.mark.parametrize(
    ("name", "auc", "log_loss", "calibration_error"),
    [
        ("rasch", 0.755, 0.545, 0.03),
        ("lstm", 0.780, 0.525, 0.03),
        ("attention", 0.780, 0.525, 0.03),
    ],
)
def test_real_answers_are_predicted_as_well_as_reported(
    name: str, auc: float, log_loss: float, calibration_error: float
) -> None:
    train, validation, test = splits()
    words, spec = KNOWLEDGE.vocabulary([train]), SPECS[name]()
    module = trained(spec, train, validation, words)
    model = Artifact(KNOWLEDGE, spec, words, module, {}, digest="")
    chances = np.concatenate(predict(model, KNOWLEDGE.examples(test, words)))
    figures = {key: metric(test["correct"], chances) for key, metric in METRICS.items()}
    print(name, figures)
    assert figures["auc"] > auc
    assert figures["log_loss"] < log_loss
    assert figures["calibration_error"] < calibration_error
