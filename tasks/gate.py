"""Gate: may this candidate become champion? Every check says what it saw, in words."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from prefect import task

from ray_jobs.cluster import Cluster
from ray_jobs.errors import ServiceError
from ray_jobs.evaluation import Evaluation
from ray_jobs.intervals import Interval
from ray_jobs.serving import deploy
from ray_jobs.serving.keys import operator_token
from ray_jobs.serving.release import Release
from ray_jobs.serving.site import Site
from tasks.crossing import Crossing
from tasks.evaluate import COLD, Report
from tasks.run import Run

log = logging.getLogger(__name__)

SHOWN = 3  # slices that a reason names


@dataclass(frozen=True)
class Check:
    """One question the gate asked, and the answer."""

    name: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate passed, and why."""

    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        return [f"{'passed' if c.passed else 'failed'}: {c.reason}" for c in self.checks]

    def as_dict(self) -> dict[str, Any]:
        checks = [asdict(c) for c in self.checks]
        return {"passed": self.passed, "reasons": self.reasons, "checks": checks}


@task(name="gate")
def gate(
    run: Run, report: Report, crossing: Crossing | None, release: Release, cluster: Cluster
) -> Verdict:
    """Check figures, then load the candidate in a real replica and measure it there."""
    verdict = Verdict(
        [*figure_checks(run, report, crossing), *replica_checks(run, release, cluster)]
    )
    for reason in verdict.reasons:
        log.info("gate: %s", reason)
    return verdict


def figure_checks(run: Run, report: Report, crossing: Crossing | None = None) -> list[Check]:
    """What the evaluation alone can tell."""
    limits, candidate, barred = run.recipe.gate, report.candidate, run.protocol.barred
    checks = [Check("protocol", False, barred)] if barred else []
    checks.append(_informed(candidate, crossing))
    if not isinstance(run.recipe.spec, type(run.family.baseline())):
        checks.append(_baseline(run, report, crossing))
    if "champion" in report.differences:
        gain = report.differences["champion"][candidate.of_kind.headline]
        checks.append(_not_worse(candidate, "champion", gain, limits.margin))
    if COLD in report.differences:
        gain = report.differences[COLD][candidate.of_kind.headline]
        checks.append(_not_worse(candidate, "cold start", gain, limits.margin))
    if report.unread_champion:
        text = f"nothing is compared with the champion, which is lost: {report.unread_champion}"
        checks.append(Check("champion", True, text))
    checks.append(_slices(report, limits.slice_margin))
    checks.append(_calibration(candidate, limits.max_calibration_error))
    size = f"{report.size_mb:.1f} MB; at most {limits.max_size_mb:g}"
    return [*checks, Check("size", report.size_mb <= limits.max_size_mb, size)]


def _informed(candidate: Evaluation, crossing: Crossing | None) -> Check:
    """Whether anything was learnt: as good as a poor baseline may be no better than chance."""
    headline = candidate.of_kind.headline
    chance = candidate.of_kind.metrics[headline].chance
    assert chance is not None, f"{headline} can head no report"
    figure = crossing.metrics[headline] if crossing else candidate.headline
    text = f"{headline} {figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"
    text += f"; its interval must lie above chance, {chance:g}"
    return Check("chance", figure.low > chance, text)


def _baseline(run: Run, report: Report, crossing: Crossing | None) -> Check:
    """Against the baseline, by the folds where there are any: they have more rows."""
    limits, candidate = run.recipe.gate, report.candidate
    headline = candidate.of_kind.headline
    gain = (crossing.difference if crossing else report.differences["baseline"])[headline]
    where = f" over {crossing.folds} folds" if crossing else ""
    if not limits.beat_baseline:
        return _not_worse(candidate, f"baseline{where}", gain, limits.margin)
    text = f"{headline} {_signed(gain)} against the baseline{where}; "
    text += "its interval must lie above zero"
    return Check("baseline", gain.low > 0, text)


def _not_worse(candidate: Evaluation, other: str, gain: Interval, margin: float) -> Check:
    headline = candidate.of_kind.headline
    text = f"{headline} {_signed(gain)} against the {other}; may be {margin:g} worse at most"
    return Check(other.split(maxsplit=1)[0], gain.value >= -margin, text)  # undefined is not better


def _slices(report: Report, margin: float) -> Check:
    """No part of the rows may pay for the rest: beyond chance and the margin, that is."""
    figure = report.candidate.of_kind.of_slice[0]
    parts = [
        (gain.high, f"{column.replace('_', ' ')} = {value}: {figure} {_signed(gain)}", other)
        for other, columns in report.slice_differences.items()
        for column, values in columns.items()
        for value, gain in values.items()
        if not math.isnan(gain.high)
    ]
    worse = sorted(part for part in parts if part[0] < -margin)
    if not worse:
        text = f"none of {len(parts)} slices is worse than another model's by more than {margin:g}"
        return Check("slices", True, text)
    shown = "; ".join(f"{text} against the {other}" for _, text, other in worse[:SHOWN])
    more = f" and {len(worse) - SHOWN} more" if len(worse) > SHOWN else ""
    return Check("slices", False, f"worse by more than {margin:g} where {shown}{more}")


def _calibration(candidate: Evaluation, limit: float) -> Check:
    error, chance = candidate.metrics["calibration_error"].value, candidate.calibration_by_chance
    text = f"calibration error {error:.4f}; at most {limit:g}"
    if chance > limit:
        text += f", or the {chance:.4f} that {candidate.rows} rows may show by chance"
    return Check("calibration", error <= max(limit, chance), text)


def replica_checks(run: Run, release: Release, cluster: Cluster) -> list[Check]:
    limit = run.recipe.gate.max_latency_ms
    try:
        with deploy.candidate(
            release,
            cluster.services,
            site=Site.of(run.settings),
            resources=run.recipe.resources,
        ) as url:
            latency = float(
                np.percentile(deploy.latencies_ms(url, release, token=operator_token(run.key)), 95)
            )
    except ServiceError as error:
        return [Check("replica", False, str(error))]
    text = f"p95 of single requests {latency:.1f} ms in a real replica; at most {limit:g}"
    loaded = Check("replica", True, "loads and answers its golden requests in a real replica")
    return [loaded, Check("latency", latency <= limit, text)]


def _signed(figure: Interval) -> str:
    if math.isnan(figure.value):
        return "undefined"
    return f"{figure.value:+.4f} ({figure.low:+.4f} to {figure.high:+.4f})"
