"""The data report: everything it says, as one record, as JSON, and as a few lines for Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ray_jobs.data.clean import CleanTable
from ray_jobs.data.drift import Drift
from ray_jobs.data.profile import Column, Key, Profile
from ray_jobs.data.proof import Proof
from ray_jobs.data.split import SplitTable
from ray_jobs.data.spread import QUANTILES, Numbers

BARS = 20  # of a histogram
COMMON = 20  # values that are named
MARKS = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{mark: f"\\{mark}" for mark in "\\`*_[]|#"}}
)


@dataclass(frozen=True)
class File:
    """Files that were read together."""

    names: list[str]
    rows: int
    malformed: int


@dataclass(frozen=True)
class Comparison:
    """How far the data has moved from other data."""

    against: str  # the previous snapshot, or what the champion was trained on
    name: str  # of that data; empty where there is none
    drifts: list[Drift]
    why: str = ""  # nothing was compared

    def moved(self, reading: str) -> list[str]:
        """What has moved so far."""
        return [drift.name for drift in self.drifts if drift.reading == reading]


@dataclass(frozen=True)
class Sheet:
    """What is told of a run's data; of refused data no more than its accounts."""

    service: str
    family: str
    rows: str  # what a row is, many of them
    protocol: str  # by which answers are rows, and figures taken
    ordered: bool  # the order of rows without times is their time
    table: CleanTable
    limit: float  # fraction of bad rows that the recipe allows
    files: Sequence[File] = ()
    profile: Profile | None = None
    splits: SplitTable | None = None
    proof: Proof | None = None
    comparisons: Sequence[Comparison] = ()

    @property
    def snapshot(self) -> str:
        """What it is called; empty where nobody said."""
        return self.table.snapshot

    @property
    def refused(self) -> str:
        """Why there is no more than accounts, if so."""
        return self.table.refused

    @property
    def bad(self) -> int:
        return sum(self.table.quarantined.values())

    @property
    def order(self) -> str:
        """What is the time of a row."""
        if self.table.timed:
            return "rows carry times"
        what = "their order is their time" if self.ordered else "their order tells nothing"
        return f"rows carry no times that tell them apart: {what}"


def document(sheet: Sheet) -> dict[str, Any]:
    """All of it as JSON values."""
    table, splits, proof = sheet.table, sheet.splits, sheet.proof
    return {
        "service": sheet.service,
        "family": sheet.family,
        "protocol": sheet.protocol,
        "snapshot": sheet.snapshot,
        "digest": table.digest,
        "refused": sheet.refused,
        "accounts": {
            **table.counts,
            "bad_fraction": sheet.bad / max(table.read, 1),
            "max_bad_fraction": sheet.limit,
            "quarantine": table.quarantine,
        },
        "timed": table.timed,
        "order": sheet.order,
        "notes": list(table.notes),
        "files": [asdict(file) for file in sheet.files],
        "profile": _profile(sheet.profile) if sheet.profile else None,
        "splits": splits.as_dict() if splits else None,
        "proof": {**asdict(proof), "leaks": proof.fault} if proof else None,
        "drift": [_comparison(comparison) for comparison in sheet.comparisons],
    }


def _profile(profile: Profile) -> dict[str, Any]:
    return {
        "rows": profile.rows,
        "groups": profile.groups,
        "label": profile.label,
        "columns": {name: _column(c, profile.rows) for name, c in profile.columns.items()},
        "keys": {name: _key(key) for name, key in profile.keys.items()},
    }


def _column(column: Column, rows: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": column.kind, "missing": column.missing}
    facts["missing_share"] = column.missing / max(rows, 1)
    if column.numbers:
        facts["characters" if column.kind == "text" else "numbers"] = _numbers(column.numbers)
    if column.values:
        counted = list(column.values.rows.items())
        facts |= {"distinct": len(counted), "uncounted_rows": column.values.others}
        facts["common"] = dict(counted[:COMMON])
    return facts


def _key(key: Key) -> dict[str, Any]:
    return {
        "count": key.count,
        "uncounted_rows": key.others,
        "rows": _numbers(key.rows),
        "label_mean": _numbers(key.label) if key.label else None,
    }


def _numbers(numbers: Numbers) -> dict[str, Any]:
    edges, rows = numbers.spread.histogram(BARS)
    found = numbers.spread.quantiles(QUANTILES)
    return {
        "rows": numbers.rows,
        "mean": numbers.mean,
        "deviation": numbers.deviation,
        "min": numbers.low,
        "max": numbers.high,
        "quantiles": {f"{q:g}": value for q, value in zip(QUANTILES, found, strict=True)},
        "histogram": {"edges": edges, "rows": rows},
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    drifts = [{**asdict(drift), "reading": drift.reading} for drift in comparison.drifts]
    return {**asdict(comparison), "drifts": drifts}


def headlines(sheet: Sheet) -> list[str]:
    """The main counts, a sentence each."""
    table = sheet.table
    lines = [f"refused: {sheet.refused}"] if sheet.refused else []
    lines.append(
        f"{table.read:,} rows read = {table.kept:,} kept + {sheet.bad:,} quarantined + "
        f"{table.merged:,} merged + {table.repeats:,} repeats"
    )
    if sheet.profile:
        over = [f"{name}: {key.count:,}" for name, key in sheet.profile.keys.items()]
        lines.append("; ".join([f"{sheet.profile.rows:,} {sheet.rows}", *over]))
    if sheet.proof:
        lines.append(apart(sheet.proof))
    return lines + [drifted(comparison) for comparison in sheet.comparisons]


def apart(proof: Proof) -> str:
    """What the proof found, in a sentence."""
    if proof.fault:
        return f"leak: {proof.fault}"
    groups = ", ".join(f"{count:,} {name}" for name, count in proof.groups.items())
    divided = "" if proof.cut is None else ", and training ends before testing begins"
    return f"no leak: {proof.shared} groups stand in more than one split ({groups}){divided}"


def drifted(comparison: Comparison) -> str:
    """How far the data has moved, in a sentence."""
    if comparison.why:
        return f"not compared with {comparison.against}: {comparison.why}"
    words = [
        f"{len(names)} {reading} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for reading in ("large", "moderate")
        if (names := comparison.moved(reading))
    ]
    told = "; ".join(words) or "nothing has moved beyond 0.1"
    return f"drift against {comparison.against}, {comparison.name}: {told}"


def markdown(sheet: Sheet) -> str:
    """The page that Prefect shows."""
    facts = [f"# Data of {sheet.service}", "", *(f"- {plain(line)}" for line in headlines(sheet))]
    rows = [["kept", f"{sheet.table.kept:,}"]]
    rows += [[f"quarantined: {plain(r)}", f"{n:,}"] for r, n in sheet.table.quarantined.items()]
    rows += [["merged", f"{sheet.table.merged:,}"], ["repeats", f"{sheet.table.repeats:,}"]]
    table = ["| rows | |", "|---|---:|", *(f"| {name} | {count} |" for name, count in rows)]
    notes = [f"- {plain(note)}" for note in [sheet.order, *sheet.table.notes]]
    return "\n".join([*facts, "", *table, "", *notes])


def plain(text: str) -> str:
    """Text from data, as Markdown shows it and does not read it."""
    return " ".join(text.split()).translate(MARKS)
