"""Who may become champion: every figure that is not good enough stops a candidate, in words."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ray_jobs.cluster import Cluster
from ray_jobs.errors import ServiceError
from ray_jobs.evaluation import Evaluation
from ray_jobs.families.knowledge.networks.lstm import Lstm
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.families.knowledge.table import Columns
from ray_jobs.intervals import Interval
from ray_jobs.privacy import Key
from ray_jobs.recipe import Gate, Recipe
from ray_jobs.serving import deploy
from ray_jobs.serving.keys import OPERATOR
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tasks.evaluate import Report
from tasks.gate import Check, Verdict, figure_checks, gate, replica_checks
from tasks.run import Run
from tests.judging import judged

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
    return judged(rows, slices=[])


def run(spec: Any = None, *, protocol: str = "N", **limits: Any) -> Run:
    recipe = Recipe(
        name="test",
        family="knowledge",
        service="algebra",
        spec=spec or Lstm(),
        gate=Gate(**limits),
        columns=Columns(protocol=protocol),
    )
    made = Run(recipe, Settings(home=Path("nowhere")))
    vars(made)["key"] = Key(bytes(32))  # or one would be made, or found, on this machine
    return made


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
    assert names == ["chance", "baseline", "champion", "slices", "calibration", "size"]
    assert all(reason.startswith("passed: ") for reason in verdict.reasons)
    assert "+0.0200 (+0.0100 to +0.0300) against the baseline" in verdict.reasons[1]


@pytest.mark.parametrize(
    "gain", [WORSE, UNDEFINED, Interval(0.01, -0.001, 0.02), Interval(0.01, 0.0, 0.02)]
)
def test_a_gain_over_the_baseline_that_may_be_none_is_none(
    evaluation: Evaluation, gain: Interval
) -> None:
    checks = figure_checks(run(), report(evaluation, baseline=gain))
    assert failed(checks) == ["baseline"]
    assert "its interval must lie above zero" in checks[1].reason


@pytest.mark.parametrize(
    ("value", "passes"), [(0.01, True), (-0.002, True), (-0.0021, False), (math.nan, False)]
)
def test_a_champion_yields_to_what_is_not_worse_beyond_the_margin(
    evaluation: Evaluation, value: float, passes: bool
) -> None:
    gain = Interval(value, value - 0.01, value + 0.01)
    checks = figure_checks(run(margin=0.002), report(evaluation, baseline=BETTER, champion=gain))
    assert failed(checks) == ([] if passes else ["champion"])
    assert "against the champion; may be 0.002 worse at most" in checks[2].reason


def test_a_start_must_not_cost_more_than_the_margin(evaluation: Evaluation) -> None:
    for value, passes in ((-0.002, True), (-0.0021, False)):
        gain = Interval(value, value - 0.01, value + 0.01)
        told = report(evaluation, baseline=BETTER, champion=BETTER, cold_start=gain)
        checks = figure_checks(run(margin=0.002), told)
        assert failed(checks) == ([] if passes else ["cold"])
        assert "against the cold start; may be 0.002 worse" in checks[3].reason


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
    assert "at most 0.05" in checks[3].reason


def test_a_model_over_its_size_stops(evaluation: Evaluation) -> None:
    checks = figure_checks(run(max_size_mb=2), report(evaluation, size_mb=2.1, baseline=BETTER))
    assert failed(checks) == ["size"]
    assert checks[-1].reason == "2.1 MB; at most 2"


def test_the_baseline_itself_need_only_beat_chance(evaluation: Evaluation) -> None:
    level = report(evaluation, baseline=Interval(0.0, 0.0, 0.0))
    assert failed(figure_checks(run(Rasch()), level)) == []


@pytest.mark.parametrize("spec", [Rasch(), Lstm()])
@pytest.mark.parametrize("low", [0.49, 0.5])
def test_who_may_know_nothing_stops_even_where_the_baseline_knows_nothing_either(
    evaluation: Evaluation, spec: Any, low: float
) -> None:
    chance = with_figure(evaluation, "auc", Interval(0.52, low, 0.55))
    checks = figure_checks(
        run(spec, beat_baseline=False), report(chance, baseline=Interval(0.0, 0.0, 0.0))
    )
    assert failed(checks) == ["chance"]
    assert "above chance, 0.5" in checks[0].reason


def test_a_protocol_that_leaks_stops_who_is_good_at_all_else(evaluation: Evaluation) -> None:
    checks = figure_checks(run(protocol="K1"), report(evaluation, baseline=BETTER, champion=BETTER))
    assert failed(checks) == ["protocol"]
    assert checks[0].reason.startswith("protocol K1 leaks outcomes")
    assert "only for comparison with published figures" in checks[0].reason


def test_one_failed_check_is_enough_and_all_are_told(evaluation: Evaluation) -> None:
    verdict = Verdict(
        figure_checks(run(max_size_mb=2), report(evaluation, size_mb=9, baseline=WORSE))
    )
    assert not verdict.passed
    failing = [c.name for c in verdict.checks if not c.passed]
    assert failing == ["baseline", "size"]
    assert [r.split(":")[0] for r in verdict.reasons].count("failed") == 2
    told = verdict.as_dict()
    assert told["passed"] is False
    assert told["reasons"] == verdict.reasons
    assert [c["name"] for c in told["checks"]] == [
        "chance",
        "baseline",
        "slices",
        "calibration",
        "size",
    ]


HERE = Cluster(dashboard="http://here:1", serve="http://here:2", lasting=False)
RELEASE = Release("algebra", "knowledge", "l1", "/store/artifact", "d1", [], {})


class Replica:
    """What `deploy` gives the gate: a candidate that answers so fast, or does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.latencies_ms: list[float] = [1.0] * 100
        self.trouble: dict[str, str] = {}
        self.standing = 0
        monkeypatch.setattr(deploy, "candidate", self.candidate)
        monkeypatch.setattr(deploy, "latencies_ms", self.measured)

    @contextlib.contextmanager
    def candidate(self, release: Release, base_url: str, **_: Any) -> Iterator[str]:
        self.refuse("start")
        self.standing += 1
        try:
            yield f"{base_url}/candidate-{release.service}"
        finally:
            self.standing -= 1

    def measured(self, url: str, release: Release, *, token: str) -> list[float]:
        assert release == RELEASE
        assert token.startswith(OPERATOR)
        assert (url, self.standing) == ("http://here:2/candidate-algebra", 1)
        self.refuse("answer")
        return self.latencies_ms

    def refuse(self, what: str) -> None:
        if what in self.trouble:
            raise ServiceError(self.trouble[what])


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replica]:
    made = Replica(monkeypatch)
    yield made
    assert made.standing == 0


@pytest.mark.parametrize(("slow", "passes"), [(0, True), (4, True), (6, False), (100, False)])
def test_one_request_in_twenty_may_be_slow(replica: Replica, slow: int, passes: bool) -> None:
    replica.latencies_ms = [900.0] * slow + [1.0] * (100 - slow)
    checks = replica_checks(run(max_latency_ms=100), RELEASE, HERE)
    assert [check.name for check in checks] == ["replica", "latency"]
    assert failed(checks) == ([] if passes else ["latency"])
    assert checks[1].reason.endswith("in a real replica; at most 100")


def test_a_latency_at_its_limit_passes(replica: Replica) -> None:
    replica.latencies_ms = [100.0] * 100
    assert failed(replica_checks(run(max_latency_ms=100), RELEASE, HERE)) == []


@pytest.mark.parametrize("what", ["start", "answer"])
def test_what_cannot_load_or_answer_is_stopped_in_the_replicas_own_words(
    replica: Replica, evaluation: Evaluation, what: str
) -> None:
    replica.trouble = {what: "golden request 1 of algebra is answered 0.3000 away"}
    verdict = gate.fn(run(), report(evaluation, baseline=BETTER), None, RELEASE, HERE)
    assert not verdict.passed
    assert failed(verdict.checks) == ["replica"]
    assert verdict.reasons[-1] == f"failed: {replica.trouble[what]}"
    assert [c.name for c in verdict.checks] == [
        "chance",
        "baseline",
        "slices",
        "calibration",
        "size",
        "replica",
    ]


@pytest.mark.parametrize(
    ("limits", "of", "size_mb"),
    [({"max_size_mb": 2}, 0.01, 2.0), ({"max_calibration_error": 0.04}, 0.04, 1.0)],
)
def test_a_figure_at_its_limit_passes(
    evaluation: Evaluation, limits: dict[str, Any], of: float, size_mb: float
) -> None:
    level = with_figure(evaluation, "calibration_error", Interval(of, of, of))
    assert (
        failed(figure_checks(run(**limits), report(level, size_mb=size_mb, baseline=BETTER))) == []
    )
