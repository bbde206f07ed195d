"""Gate: may this candidate become champion? Every check says what it saw, in words."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from prefect import task

from ray_jobs.cluster import Cluster
from ray_jobs.errors import ServiceError
from ray_jobs.intervals import Interval
from ray_jobs.serving import deploy
from ray_jobs.serving.release import Release
from tasks.evaluate import Report
from tasks.run import Run

log = logging.getLogger(__name__)


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
def gate(run: Run, report: Report, release: Release, cluster: Cluster) -> Verdict:
    """Check figures, then load the candidate in a real replica and measure it there."""
    verdict = Verdict([*figure_checks(run, report), *replica_checks(run, release, cluster)])
    for reason in verdict.reasons:
        log.info("gate: %s", reason)
    return verdict


def figure_checks(run: Run, report: Report) -> list[Check]:
    """What the evaluation alone can tell."""
    limits, headline = run.recipe.gate, run.family.headline
    checks = [_over_baseline(run, report)]
    if "champion" in report.differences:
        gain = report.differences["champion"][headline]
        checks.append(
            Check(
                "champion",
                gain.value >= -limits.margin,  # undefined is not better
                f"{headline} {_signed(gain)} against the champion; "
                f"may be {limits.margin} worse at most",
            )
        )
    error = report.candidate.metrics["calibration_error"].value
    checks.append(
        Check(
            "calibration",
            error <= limits.max_calibration_error,
            f"calibration error {error:.4f}; at most {limits.max_calibration_error}",
        )
    )
    checks.append(
        Check(
            "size",
            report.size_mb <= limits.max_size_mb,
            f"{report.size_mb:.1f} MB; at most {limits.max_size_mb:g}",
        )
    )
    return checks


def _over_baseline(run: Run, report: Report) -> Check:
    headline = run.family.headline
    if isinstance(run.recipe.spec, type(run.family.baseline())):
        figure = report.candidate.metrics[headline]
        text = f"{headline} {figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"
        return Check("baseline", figure.low > 0.5, f"{text} of the baseline itself, against chance")
    gain = report.differences["baseline"][headline]
    text = f"{headline} {_signed(gain)} against the baseline; its interval must lie above zero"
    return Check("baseline", gain.low > 0, text)


def replica_checks(run: Run, release: Release, cluster: Cluster) -> list[Check]:
    limit = run.recipe.gate.max_latency_ms
    try:
        with deploy.candidate(
            release,
            cluster.services,
            key_file=str(run.settings.key_file),
            resources=run.recipe.resources,
        ) as url:
            latency = float(np.percentile(deploy.latencies_ms(url, release), 95))
    except ServiceError as error:
        return [Check("replica", False, str(error))]
    text = f"p95 of single requests {latency:.1f} ms in a real replica; at most {limit:g}"
    loaded = Check("replica", True, "loads and answers its golden requests in a real replica")
    return [loaded, Check("latency", latency <= limit, text)]


def _signed(figure: Interval) -> str:
    return f"{figure.value:+.4f} ({figure.low:+.4f} to {figure.high:+.4f})"
