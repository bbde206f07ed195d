"""The report of a run: one JSON document, and a page of Markdown for people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.evaluation import plain_intervals
from ray_jobs.intervals import Interval
from ray_jobs.recipe import as_dict
from ray_jobs.serving.release import Release
from tasks.crossing import Crossing
from tasks.evaluate import COLD, Report
from tasks.gate import Verdict
from tasks.progress import Progress
from tasks.run import Run
from tasks.start import Begun
from tasks.train import Model

UNDEFINED = "–"


@dataclass(frozen=True)
class Outcome:
    """Everything a run found, and where it can be seen."""

    run: Run
    lineage: str
    clean: CleanTable
    splits: SplitTable
    begun: Begun
    model: Model
    cold: Model | None  # the same recipe trained from nothing, where training began elsewhere
    report: Report
    crossing: Crossing | None  # where folds were asked for
    verdict: Verdict | None  # None: the candidate was champion already
    champion: Release | None  # before this run
    version: str
    endpoint: str | None
    progress: Progress
    links: dict[str, str]


def document(outcome: Outcome) -> dict[str, Any]:
    """What `--json` writes."""
    run, report, clean = outcome.run, outcome.report, outcome.clean
    recipe = run.recipe
    slices = report.candidate.as_dict()["slices"]
    return {
        "service": recipe.service,
        "family": recipe.family,
        "recipe": recipe.name,
        "spec": as_dict(recipe.spec),
        "protocol": run.protocol.words,
        "version": outcome.version,
        "lineage": outcome.lineage,
        "data": {
            "digest": clean.digest,
            "rows": clean.read,
            "kept": clean.kept,
            "quarantined": clean.quarantined,
            "merged": clean.merged,
            "repeats": clean.repeats,
            "expanded": clean.expanded,
            "notes": clean.notes,
            "split": outcome.splits.as_dict(),
        },
        "headline": report.candidate.of_kind.headline,
        "metrics": plain_intervals(report.candidate.metrics),
        "slices": slices,
        "cross_validation": outcome.crossing.as_dict() if outcome.crossing else None,
        "importance": plain_intervals(report.importance),
        "baseline": _other(outcome, "baseline", {"spec": as_dict(run.family.baseline())}),
        "champion": _champion(outcome),
        "start": outcome.begun.as_dict(),
        "cold_start": _other(outcome, COLD, _training(outcome.cold)) if outcome.cold else None,
        "best_possible": _best_possible(outcome),
        "gate": _gate(outcome.verdict),
        "timings_s": outcome.progress.timings_s,
        "cached": outcome.progress.cached,
        "train": _training(outcome.model),
        "endpoint": outcome.endpoint,
        "request": _request(report),
        "links": outcome.links,
    }


def markdown(outcome: Outcome) -> str:
    """The page that Prefect shows."""
    report, recipe = outcome.report, outcome.run.recipe
    gate = _gate(outcome.verdict)
    lines = [f"# {recipe.service}, version {outcome.version}", ""]
    if outcome.endpoint:
        lines += [f"Live at [{outcome.endpoint}]({outcome.endpoint}/docs).", ""]
    lines += ["| figure | candidate | " + " | ".join(report.others) + " |"]
    lines += ["|---|---|" + "---|" * len(report.others)]
    for name, figure in report.candidate.metrics.items():
        cells = [_text(figure), *(_text(o.metrics[name]) for o in report.others.values())]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Protocol {outcome.run.protocol.words}.",
        *_begun(outcome.begun),
        "",
        _accounts(outcome),
        "",
        "## Gate",
        "",
        *(f"- {reason}" for reason in gate["reasons"]),
        "",
        "## Links",
        "",
        *(f"- [{name}]({url})" for name, url in outcome.links.items()),
        "",
        f"Lineage `{outcome.lineage}`",
    ]
    return "\n".join(lines)


def _request(report: Report) -> dict[str, Any]:
    """Something the service can be asked: a short golden request, yet not an empty one."""
    requests: list[dict[str, Any]] = [case["request"] for case in report.golden]
    telling = [request for request in requests if all(request.values())]
    return min(telling or requests, key=lambda request: len(str(request)))


def _accounts(outcome: Outcome) -> str:
    counts = outcome.clean.counts
    quarantined = sum(outcome.clean.quarantined.values())
    return (
        f"Data `{outcome.clean.digest[:12]}`: {counts['read']:,} rows read = {counts['kept']:,} "
        f"kept + {quarantined:,} quarantined + {counts['merged']:,} merged + "
        f"{counts['repeats']:,} repeats."
    )


def _training(model: Model) -> dict[str, Any]:
    names = ("workers", "rows_per_s", "epochs", "seconds")
    return {name: getattr(model, name) for name in names}


def _begun(begun: Begun) -> list[str]:
    if begun.parent is None:
        return []
    return ["", f"Training began from version {begun.parent.version}."]


def _gate(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"passed": True, "reasons": ["skipped: the candidate is the champion already"]}
    return verdict.as_dict()


def _other(outcome: Outcome, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    report = outcome.report
    return {
        **facts,
        "metrics": plain_intervals(report.others[name].metrics),
        "difference": plain_intervals(report.differences[name]),
    }


def _best_possible(outcome: Outcome) -> dict[str, Any] | None:
    best = outcome.report.best_possible
    if best is None:
        return None
    return {"by": outcome.run.family.words.ceiling, "metrics": plain_intervals(best)}


def _champion(outcome: Outcome) -> dict[str, Any] | None:
    champion = outcome.champion
    if champion is None or "champion" not in outcome.report.others:
        return None
    facts = {"version": champion.version, "lineage": champion.lineage}
    return _other(outcome, "champion", facts)


def _text(figure: Interval) -> str:
    if math.isnan(figure.value):
        return UNDEFINED
    bounds = "" if math.isnan(figure.low) else f" [{figure.low:.4f}, {figure.high:.4f}]"
    return f"{figure.value:.4f}{bounds}"
