"""The report of a run in a few lines, for the person who started it."""

from __future__ import annotations

from typing import Any

from flows.cli import console


def show(report: dict[str, Any]) -> None:
    """Figures against baseline and champion, the gate's words, and where to look."""
    keys = ("baseline", "champion", "cold_start")
    others = {key.replace("_", " "): report[key] for key in keys if report[key]}
    columns = ["figure", "this version", *others, *(f"against {name}" for name in others)]
    rows = []
    for name, figure in report["metrics"].items():
        row = [name.replace("_", " "), _interval(figure)]
        row += [_number(other["metrics"][name]["value"]) for other in others.values()]
        row += [_interval(other["difference"][name], "+") for other in others.values()]
        rows.append(row)
    console.table(f"{report['service']} version {report['version']}", columns, rows)
    console.say(f"protocol {report['protocol']}")
    if begun := report["start"]["version"]:
        console.say(_start(begun, report["train"], report["cold_start"]))
    if crossed := report["cross_validation"]:
        _folds(crossed)
    if best := report["best_possible"]:
        _ceiling(report, best)
    data = report["data"]
    quarantined = sum(data["quarantined"].values())
    console.say(
        f"data: {data['rows']} rows read = {data['kept']} kept + {quarantined} quarantined + "
        f"{data['merged']} merged + {data['repeats']} repeats"
    )
    for reason in report["gate"]["reasons"]:
        console.say(f"gate: {reason}")
    for name, url in report["links"].items():
        console.say(f"{name}: {url}")
    if report["cached"]:
        console.say(f"from cache: {', '.join(report['cached'])}")


def _start(version: str, own: dict[str, Any], cold: dict[str, Any] | None) -> str:
    took = f"{own['epochs']} epochs, {own['seconds']:.1f} s"
    told = f"training began from version {version}: {took}"
    if cold is None:
        return told
    return f"{told}; from nothing: {cold['epochs']} epochs, {cold['seconds']:.1f} s"


def _folds(crossed: dict[str, Any]) -> None:
    columns = ["over all folds", "this version", "baseline", "against baseline"]
    rows = [
        [
            name.replace("_", " "),
            _interval(figure),
            _number(crossed["baseline"][name]["value"]),
            _interval(crossed["difference"][name], "+"),
        ]
        for name, figure in crossed["metrics"].items()
    ]
    console.table(
        f"cross-validation, {crossed['folds']} folds, {crossed['rows']} rows", columns, rows
    )


def _ceiling(report: dict[str, Any], best: dict[str, Any]) -> None:
    name = report["headline"]
    figures = (report["baseline"]["metrics"], report["metrics"])
    base, mine = (_number(metrics[name]["value"]) for metrics in figures)
    limit = _number(best["metrics"][name]["value"])
    console.say(
        f"best possible: {name.upper()} {limit}, by {best['by']}; "
        f"baseline {base}, this version {mine}"
    )


def _interval(figure: dict[str, float | None], sign: str = "") -> str:
    value, low, high = (_number(figure[k], sign) for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4f}"
