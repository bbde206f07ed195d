"""Figures of several classes and of numbers are those of scikit-learn, weights and all."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.metrics import KINDS
from ray_jobs.metrics.classes import confusion
from ray_jobs.target import Array

CLASSES, NUMBERS = KINDS["classes"].metrics, KINDS["number"].metrics


@st.composite
def classified(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """True classes, probabilities of four (not all of which need occur), and weights."""
    n = draw(st.integers(4, 40))
    true = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    seed = draw(st.integers(0, 1000))
    weight = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    chances = np.random.default_rng(seed).dirichlet(np.ones(4), n)
    return np.array(true, float), chances, np.array(weight, float)


@given(classified())
def test_macro_figures_equal_scikit_learns(sample: tuple[Array, Array, Array]) -> None:
    true, chances, weight = sample
    if not weight.any():
        return
    called = chances.argmax(axis=1)
    how = {"average": "macro", "sample_weight": weight, "zero_division": 0.0}
    # scikit-learn counts a class that no row of any weight has, as ours does not.
    seen = sorted({int(c) for part in (true, called) for c in part[weight > 0]})
    expected = {
        "accuracy": reference.accuracy_score(true, called, sample_weight=weight),
        "precision": reference.precision_score(true, called, labels=seen, **how),
        "recall": reference.recall_score(true, called, labels=seen, **how),
        "macro_f1": reference.f1_score(true, called, labels=seen, **how),
        "log_loss": reference.log_loss(true, chances, labels=range(4), sample_weight=weight),
    }
    for name, value in expected.items():
        assert CLASSES[name](true, chances, weight) == pytest.approx(value, abs=1e-9), name


@given(classified())
def test_the_auc_of_classes_is_the_mean_of_each_against_the_rest(
    sample: tuple[Array, Array, Array],
) -> None:
    true, chances, weight = sample
    each = []
    for c in range(4):
        rest = true[weight > 0] == c
        if rest.any() and not rest.all():
            each.append(reference.roc_auc_score(true == c, chances[:, c], sample_weight=weight))
    found = CLASSES["auc"](true, chances, weight)
    assert math.isnan(found) if not each else found == pytest.approx(np.mean(each))


def test_a_confusion_counts_every_row_in_its_cell() -> None:
    true = np.array([0.0, 0, 1, 2, 2])
    chances = np.eye(3)[[0, 1, 1, 2, 0]]
    assert confusion(true, chances).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_who_is_sure_and_right_as_often_as_said_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(3), 20_000)
    true = (chances.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1).astype(float)
    assert CLASSES["calibration_error"](true, chances) < 0.015
    sure = np.clip(chances**3, 1e-9, None)
    sure /= sure.sum(axis=1, keepdims=True)
    assert CLASSES["calibration_error"](true, sure) > 0.1


@st.composite
def measured(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    n = draw(st.integers(3, 40))
    amounts = st.floats(-1e3, 1e3, allow_nan=False, width=32)
    truth, told = (draw(st.lists(amounts, min_size=n, max_size=n)) for _ in range(2))
    weight = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return np.array(truth), np.array(told), np.array(weight, float)


@given(measured())
def test_errors_of_numbers_equal_scikit_learns(sample: tuple[Array, Array, Array]) -> None:
    truth, told, weight = sample
    if not weight.any():
        return
    mean = {"sample_weight": weight}
    assert NUMBERS["rmse"](truth, told, weight) == pytest.approx(
        reference.root_mean_squared_error(truth, told, **mean), abs=1e-9
    )
    assert NUMBERS["mae"](truth, told, weight) == pytest.approx(
        reference.mean_absolute_error(truth, told, **mean), abs=1e-9
    )
    r2 = NUMBERS["r2"](truth, told, weight)
    if np.ptp(truth[weight > 0]) < 1e-3:
        return  # its variance is rounding noise, or nearly
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert r2 == pytest.approx(reference.r2_score(truth, told, **mean), rel=1e-6)


def test_what_nobody_can_explain_has_no_share_of_it_explained() -> None:
    assert math.isnan(NUMBERS["r2"](np.full(5, 3.0), np.arange(5.0)))
    assert math.isnan(NUMBERS["calibration_error"](np.full(5, 3.0), np.arange(5.0)))
    spread = np.array([1.0, 2, 3, 4])
    assert NUMBERS["r2"](spread, np.full(4, spread.mean())) == pytest.approx(0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_headline_has_a_chance_level_that_ignorance_reaches(kind: str) -> None:
    metrics, rng = KINDS[kind].metrics, np.random.default_rng(1)
    headline = metrics[KINDS[kind].headline]
    truth = rng.integers(0, 2, 4000).astype(float) if kind != "number" else rng.normal(size=4000)
    ignorant = np.full((4000, 2), 0.5) if kind == "classes" else np.full(4000, truth.mean())
    assert headline.chance is not None
    assert headline(truth, ignorant) == pytest.approx(headline.chance, abs=1e-9)
