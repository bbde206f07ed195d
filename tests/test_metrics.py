"""The figures are those the textbooks define, and their intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.intervals import Draws, interval, replicates
from ray_jobs.metrics import BINS, KINDS, equal_mass_bins
from ray_jobs.target import Array

METRICS = KINDS["binary"].metrics

Rows = tuple[Array, Array, Array]


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Targets, coarse predictions (many ties) and weights (some zero)."""
    n = draw(st.integers(2, 60))
    levels = draw(st.sampled_from([2, 5, 100]))
    target = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    level = draw(st.lists(st.integers(1, levels), min_size=n, max_size=n))
    weight = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    prediction = np.array(level) / (levels + 1)
    return np.array(target, float), prediction, np.array(weight, float)


@given(rows())
def test_figures_equal_scikit_learns_with_ties_and_weights(sample: Rows) -> None:
    target, prediction, weight = sample
    if len(set(target[weight > 0])) < 2:
        return
    expected = {
        "auc": reference.roc_auc_score(target, prediction, sample_weight=weight),
        "log_loss": reference.log_loss(target, prediction, sample_weight=weight, labels=[0, 1]),
        "brier": reference.brier_score_loss(target, prediction, sample_weight=weight),
        "accuracy": reference.accuracy_score(target, prediction >= 0.5, sample_weight=weight),
    }
    for name, value in expected.items():
        assert METRICS[name](target, prediction, weight) == pytest.approx(value, abs=1e-9), name


@given(rows())
def test_a_weight_of_two_is_the_row_twice(sample: Rows) -> None:
    target, prediction, weight = sample
    copies = np.repeat(np.arange(len(target)), weight.astype(int))
    for name in ("auc", "log_loss", "brier", "accuracy"):
        weighted = METRICS[name](target, prediction, weight)
        repeated = METRICS[name](target[copies], prediction[copies])
        assert weighted == pytest.approx(repeated, nan_ok=True), name


@given(rows())
def test_the_order_of_rows_changes_no_figure(sample: Rows) -> None:
    target, prediction, weight = sample
    order = np.random.default_rng(len(target)).permutation(len(target))
    for name, metric in METRICS.items():
        before = metric(target, prediction, weight)
        after = metric(target[order], prediction[order], weight[order])
        assert before == pytest.approx(after, nan_ok=True), name


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_the_auc_of_one_class_is_undefined_and_never_a_number(only: float) -> None:
    assert math.isnan(METRICS["auc"](np.full(5, only), np.linspace(0, 1, 5)))


def test_partial_credit_counts_in_full_for_the_loss_and_from_one_half_for_the_auc() -> None:
    target, prediction = [0.25, 0.5, 1.0], [0.2, 0.6, 0.9]
    assert METRICS["auc"](target, prediction) == 1.0
    crossed = [
        -t * np.log(p) - (1 - t) * np.log(1 - p) for t, p in zip(target, prediction, strict=True)
    ]
    assert METRICS["log_loss"](target, prediction) == pytest.approx(np.mean(crossed))


@pytest.mark.parametrize("name", METRICS)
def test_who_knows_the_truth_has_the_better_figure_of_those_who_guess(name: str) -> None:
    rng = np.random.default_rng(5)
    truth = rng.random(5000)
    target = (rng.random(len(truth)) < truth).astype(float)
    known, guessed = METRICS[name](target, truth), METRICS[name](target, rng.random(len(truth)))
    assert (known > guessed) is METRICS[name].higher_is_better


def test_half_the_credit_is_right_and_less_is_wrong() -> None:
    for metric in (METRICS["auc"], METRICS["accuracy"]):
        assert metric([0.49, 0.5], [0.4, 0.5]) == 1.0
        assert metric([0.5, 0.49], [0.4, 0.5]) == 0.0


def test_a_certain_and_wrong_prediction_costs_much_and_not_infinity() -> None:
    assert 10 < METRICS["log_loss"]([1.0], [0.0]) < 20


def test_predictions_outside_0_to_1_are_refused() -> None:
    for bad in (float("nan"), 1.5, -0.1):
        with pytest.raises(AssertionError, match="predictions outside"):
            KINDS["binary"].checked(np.array([0.0, 1.0]), np.array([0.5, bad]))


def test_bins_of_the_calibration_error_hold_equal_numbers_and_keep_ties_together() -> None:
    counts = np.bincount(equal_mass_bins(np.random.default_rng(0).random(15_000)))
    assert len(counts) == BINS
    assert counts.min() == counts.max() == 1000
    assert len(set(equal_mass_bins(np.full(100, 0.3)))) == 1


def test_the_calibration_error_is_the_gap_that_was_planted() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.2, 0.7, 200_000)
    target = (rng.random(len(truth)) < truth).astype(float)
    calibration_error = METRICS["calibration_error"]
    assert calibration_error(target, truth) < 0.01
    assert calibration_error(target, truth + 0.1) == pytest.approx(0.1, abs=0.01)
    opposite = truth + np.where(truth > 0.45, 0.1, -0.1)
    assert calibration_error(target, opposite) == pytest.approx(0.1, abs=0.015)


def learners(rng: np.random.Generator, groups: int, each: int) -> tuple[Array, Array, Array]:
    """Answers that hang together within a learner: codes, targets, predictions."""
    codes = np.repeat(np.arange(groups), each).astype(np.float64)
    ability = np.repeat(rng.normal(0, 1.5, groups), each)
    target = (rng.random(len(codes)) < 1 / (1 + np.exp(-ability))).astype(float)
    return codes, target, np.clip(0.5 + rng.normal(0, 0.1, len(codes)), 0, 1)


def test_intervals_by_learner_cover_the_truth_and_those_by_row_do_not() -> None:
    rng = np.random.default_rng(2)
    covered = {"learner": 0, "row": 0}
    worlds = 200
    for _ in range(worlds):
        codes, target, _ = learners(rng, 60, 20)
        scorers = {"rate": lambda w, t=target: float(w @ t / w.sum())}
        for unit, names in (("learner", codes), ("row", np.arange(len(codes)))):
            figures = replicates(scorers, Draws.of(names, replicates=200))["rate"]
            found = interval(float(target.mean()), figures)
            covered[unit] += found.low <= 0.5 <= found.high
    assert covered["learner"] >= 0.9 * worlds
    assert covered["row"] < 0.8 * worlds


def test_renaming_learners_changes_no_interval() -> None:
    codes, target, prediction = learners(np.random.default_rng(3), 30, 10)
    scorer = {"brier": METRICS["brier"].prepare(target, prediction)}
    names = np.array([f"learner {int(code) * 7 % 30}" for code in codes])
    before = replicates(scorer, Draws.of(codes, replicates=20))["brier"]
    after = replicates(scorer, Draws.of(names, replicates=20))["brier"]
    np.testing.assert_array_equal(before, after)


def test_a_figure_lies_in_its_own_interval_even_when_resampling_inflates_it() -> None:
    rng = np.random.default_rng(4)
    prediction = rng.uniform(0.1, 0.9, 3000)
    target = (np.arange(3000) % 1000 / 1000 < prediction).astype(float)
    calibration_error = METRICS["calibration_error"]
    value = calibration_error(target, prediction)
    scorer = {"x": calibration_error.prepare(target, prediction)}
    figures = replicates(scorer, Draws.of(np.arange(3000), replicates=200))["x"]
    assert interval(value, figures).low <= value
    assert interval(0.01, np.linspace(0.02, 0.03, 100)).low == 0.01
    assert interval(0.04, np.linspace(0.02, 0.03, 100)).high == 0.04


def test_an_interval_leaves_out_a_fortieth_on_each_side_and_what_is_undefined() -> None:
    figures = np.append(np.arange(101.0), [math.nan] * 50)
    np.random.default_rng(6).shuffle(figures)
    found = interval(50.0, figures)
    assert (found.value, found.low, found.high) == pytest.approx((50.0, 2.5, 97.5))
    assert math.isnan(interval(math.nan, figures).low)


@settings(max_examples=20)
@given(st.integers(1, 50))
def test_every_draw_holds_as_many_groups_as_there_are(groups: int) -> None:
    draws = Draws.of(np.arange(groups), replicates=5)
    totals = replicates({"total": lambda w: float(w.sum())}, draws)["total"]
    assert set(totals) == {float(groups)}
