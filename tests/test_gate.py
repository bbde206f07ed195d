"""Who may become champion: every figure that is not good enough stops a candidate, in words."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ray_jobs.evaluation import Evaluation, evaluate
from ray_jobs.families.knowledge.networks.lstm import Lstm
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.intervals import Interval
from ray_jobs.recipe import Gate, Recipe
from ray_jobs.settings import Settings
from tasks.evaluate import Report
from tasks.gate import Check, Verdict, figure_checks
from tasks.run import Run

BETTER, WORSE = Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01)
UNDEFINED = Interval(math.nan, math.nan, math.nan)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """A model that is right as often as it says."""
    rng = np.random.default_rng(0)
    prediction = rng.random(4000)
    rows = pl.DataFrame(
        {
            "group": np.repeat(np.arange(400), 10),
            "target": (rng.random(4000) < prediction).astype(np.float32),
            "prediction": prediction,
        }
    )
    return evaluate(rows, slices=[])


def run(spec: Any = None, **limits: float) -> Run:
    recipe = Recipe(
        name="test",
        family="knowledge",
        service="algebra",
        spec=spec or Lstm(),
        gate=Gate(**limits),
    )
    return Run(recipe, Settings(home=Path("nowhere")))


def report(of: Evaluation, *, size_mb: float = 1.0, **gains: Interval) -> Report:
    return Report(
        candidate=of,
        others=dict.fromkeys(gains, of),
        differences={name: {"auc": gain} for name, gain in gains.items()},
        golden=[],
        best_possible=None,
        size_mb=size_mb,
    )


def with_figure(of: Evaluation, name: str, figure: Interval) -> Evaluation:
    return dataclasses.replace(of, metrics={**of.metrics, name: figure})


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_a_good_candidate_passes_and_every_check_says_what_it_saw(evaluation: Evaluation) -> None:
    verdict = Verdict(figure_checks(run(), report(evaluation, baseline=BETTER, champion=BETTER)))
    assert verdict.passed
    names = [check.name for check in verdict.checks]
    assert names == ["baseline", "champion", "calibration", "size"]
    assert all(reason.startswith("passed: ") for reason in verdict.reasons)
    assert "+0.0200 (+0.0100 to +0.0300) against the baseline" in verdict.reasons[0]


@pytest.mark.parametrize(
    "gain", [WORSE, UNDEFINED, Interval(0.01, -0.001, 0.02), Interval(0.01, 0.0, 0.02)]
)
def test_a_gain_over_the_baseline_that_may_be_none_is_none(
    evaluation: Evaluation, gain: Interval
) -> None:
    checks = figure_checks(run(), report(evaluation, baseline=gain))
    assert failed(checks) == ["baseline"]
    assert "its interval must lie above zero" in checks[0].reason


@pytest.mark.parametrize(
    ("value", "passes"), [(0.01, True), (-0.002, True), (-0.0021, False), (math.nan, False)]
)
def test_a_champion_yields_to_what_is_not_worse_beyond_the_margin(
    evaluation: Evaluation, value: float, passes: bool
) -> None:
    gain = Interval(value, value - 0.01, value + 0.01)
    checks = figure_checks(run(margin=0.002), report(evaluation, baseline=BETTER, champion=gain))
    assert failed(checks) == ([] if passes else ["champion"])
    assert "against the champion; may be 0.002 worse at most" in checks[1].reason


def test_without_a_champion_nothing_is_asked_about_one(evaluation: Evaluation) -> None:
    checks = figure_checks(run(), report(evaluation, baseline=BETTER))
    assert "champion" not in [check.name for check in checks]


@pytest.mark.parametrize("error", [0.051, math.nan])
def test_probabilities_that_are_not_what_happens_stop_a_candidate(
    evaluation: Evaluation, error: float
) -> None:
    poor = with_figure(evaluation, "calibration_error", Interval(error, error, error))
    checks = figure_checks(run(), report(poor, baseline=BETTER))
    assert failed(checks) == ["calibration"]
    assert "at most 0.05" in checks[1].reason


def test_a_model_over_its_size_stops(evaluation: Evaluation) -> None:
    checks = figure_checks(run(max_size_mb=2), report(evaluation, size_mb=2.1, baseline=BETTER))
    assert failed(checks) == ["size"]
    assert checks[-1].reason == "2.1 MB; at most 2"


def test_the_baseline_itself_need_only_beat_chance(evaluation: Evaluation) -> None:
    level = report(evaluation, baseline=Interval(0.0, 0.0, 0.0))
    assert failed(figure_checks(run(Rasch()), level)) == []
    chance = with_figure(evaluation, "auc", Interval(0.52, 0.49, 0.55))
    checks = figure_checks(run(Rasch()), report(chance, baseline=Interval(0.0, 0.0, 0.0)))
    assert failed(checks) == ["baseline"]
    assert "against chance" in checks[0].reason


def test_one_failed_check_is_enough_and_all_are_told(evaluation: Evaluation) -> None:
    verdict = Verdict(
        figure_checks(run(max_size_mb=2), report(evaluation, size_mb=9, baseline=WORSE))
    )
    assert not verdict.passed
    assert [r.split(":")[0] for r in verdict.reasons] == ["failed", "passed", "failed"]
    told = verdict.as_dict()
    assert told["passed"] is False
    assert told["reasons"] == verdict.reasons
    assert [c["name"] for c in told["checks"]] == ["baseline", "calibration", "size"]
