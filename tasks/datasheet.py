"""The data report as a page: one file that needs no other, no network and no script.

Whatever comes from data is escaped; pictures are images, in which nothing runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from ray_jobs.data.clean import CleanTable
from ray_jobs.data.drift import Drift
from ray_jobs.data.profile import Column, Profile, Values
from ray_jobs.data.proof import Proof
from ray_jobs.data.split import NAMES, SplitTable
from ray_jobs.data.spread import Numbers
from tasks import dataplots, drawing
from tasks.sheet import Comparison, Sheet, apart, drifted, headlines

COLUMN = ("column", "kind", "#missing")
MOST_FILES = 100  # listed
MOST_NAMES = 5  # values of a column in the table
CLASSES = {"large": "bad", "moderate": "warn", "stable": "good"}
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1b1f24;
  max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; background: #fff; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem;
  padding-top: .6rem; border-top: 1px solid #d8dee4; }
p { margin: .4rem 0; max-width: 46rem; } .quiet { color: #57606a; font-size: .88rem; }
ul { padding-left: 1.2rem; margin: .4rem 0; } nav a { margin-right: 1rem; } a { color: #0072b2; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .9rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #eaeef2; overflow-wrap: break-word; max-width: 36rem; }
th { font-weight: 600; color: #57606a; border-bottom-color: #afb8c1; }
td.number, th.number { text-align: right; font-feature-settings: "tnum"; white-space: nowrap; }
img { max-width: 100%; height: auto; margin: .6rem 0; } code { font-size: .88em; }
.good { color: #116329; } .warn { color: #9a4a00; font-weight: 600; }
.bad { color: #b3261e; font-weight: 600; }
.box { border-left: 4px solid #b3261e; background: #fdf1f0; padding: .6rem 1rem; margin: 1rem 0; }
"""


def page(sheet: Sheet) -> str:
    """The whole page."""
    pictures = {n: drawing.picture(figure) for n, figure in dataplots.draw(sheet).items()}
    sections = {
        "Rows": _accounts(sheet.table, sheet.limit) + _picture(pictures, "accounts"),
        "Files": _files(sheet),
    }
    if sheet.splits and sheet.proof:
        sections["Splits"] = _splits(sheet.splits, sheet.proof)
    if sheet.profile:
        sections |= _of_profile(sheet.profile, pictures)
    if sheet.comparisons:
        sections["Drift"] = _drift(sheet.comparisons) + _picture(pictures, "drift")
    body = "".join(
        f'<section id="{name.lower()}"><h2>{name}</h2>{text}</section>'
        for name, text in sections.items()
    )
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in sections)
    title = f"Data of {escape(sheet.service)}"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>{_head(sheet)}<nav>{links}</nav>"
        f"{body}</body></html>\n"
    )


def _head(sheet: Sheet) -> str:
    names = [sheet.family, f"data {sheet.table.digest[:12]}"]
    names += [f"snapshot {sheet.snapshot}"] if sheet.snapshot else []
    refused = f'<p class="box"><b>Refused.</b> {escape(sheet.refused)}</p>' if sheet.refused else ""
    lines = [line for line in headlines(sheet) if not line.startswith("refused: ")]
    return f'<p class="quiet">{escape(" · ".join(names))}</p>{refused}{_list(lines)}'


def _accounts(table: CleanTable, limit: float) -> str:
    bad = sum(table.quarantined.values())
    share = bad / max(table.read, 1)
    held = "within" if share <= limit else "beyond"
    return (
        "<p>Every row is counted once: read = kept + quarantined + merged + repeats. "
        f"{bad:,} rows are bad, {share:.2%}: {held} the recipe's limit of {limit:.0%}. They lie, "
        f"with the reason, in <code>{escape(table.quarantine)}</code>.</p>"
    )


def _files(sheet: Sheet) -> str:
    rows = [
        [", ".join(file.names), f"{file.rows:,}", f"{file.malformed:,}"]
        for file in sheet.files[:MOST_FILES]
    ]
    more = len(sheet.files) - len(rows)
    told = _table(["files", "#rows", "#malformed"], rows)
    told += f"<p>And {more:,} more.</p>" if more > 0 else ""
    return _list([_sentence(sheet.order), *sheet.table.notes]) + told


def _splits(splits: SplitTable, proof: Proof) -> str:
    rows = [
        [name, f"{splits.rows[name]:,}", f"{splits.scored[name]:,}", f"{proof.groups[name]:,}"]
        for name in NAMES
    ]
    by = "as the data came" if splits.delivered else "by a salted hash of the group"
    told = f"<p>Divided {by}. Counted once more, from the tables that were written:</p>"
    told += f'<p class="{"bad" if proof.fault else "good"}">{escape(_sentence(apart(proof)))}</p>'
    told += _table(["split", "#rows", "#scored", "#groups"], rows)
    if proof.cut is not None and proof.latest is not None and proof.earliest is not None:
        edges = {
            "latest row to learn from": proof.latest,
            "cut": proof.cut,
            "earliest scored test row": proof.earliest,
        }
        told += _table(["time", "UTC"], [[name, _moment(edge)] for name, edge in edges.items()])
        told += f"<p>{splits.held_back:,} rows of training groups lie after the cut: left out.</p>"
    return told


def _of_profile(profile: Profile, pictures: dict[str, str]) -> dict[str, str]:
    sections = {"Columns": _columns(profile) + _picture(pictures, "missing", "columns")}
    if profile.keys:
        over = _over(profile) + _picture(pictures, "keys")
        sections = {"Distributions": over} | sections
    if "time" in pictures:
        sections = {"Time": _time(profile) + _picture(pictures, "time")} | sections
    return sections


def _time(profile: Profile) -> str:
    time = dataplots.times(profile)
    return f"<p>From {_moment(time.low)} to {_moment(time.high)}, UTC.</p>" if time else ""


def _over(profile: Profile) -> str:
    header = ["per", "#different", "#least", "#5 %", "#median", "#95 %", "#most", "#mean label"]
    rows = []
    for name, key in profile.keys.items():
        low, middle, high = key.rows.spread.quantiles((0.05, 0.5, 0.95))
        counts = (key.count, key.rows.low, low, middle, high, key.rows.high)
        mean = _number(key.label.mean) if key.label else "–"
        rows.append([name, *(_number(count) for count in counts), mean])
    rest = [name for name, key in profile.keys.items() if key.others]
    note = f"<p>Only the most common counted: {escape(', '.join(rest))}.</p>" if rest else ""
    told = "<p>Rows of each, and the mean label over each; in the plots, height is how many.</p>"
    return told + _table(header, rows) + note


def _columns(profile: Profile) -> str:
    columns = profile.columns.items()
    first = [[n, c.kind, _missing(c, profile.rows)] for n, c in columns]
    named = dict(zip(profile.columns, first, strict=True))
    numbers = [named[name] + _facts(c.kind, c.numbers) for name, c in columns if c.numbers]
    values = [named[name] + _values(c.values) for name, c in columns if c.values]
    empty = [name for name, c in columns if not c.numbers and not c.values]
    told = _table([*COLUMN, "#least", "#mean", "#deviation", "#most"], numbers)
    told += _table([*COLUMN, "#different", "most common (rows)"], values)
    told += f"<p>Empty: {escape(', '.join(empty))}.</p>" if empty else ""
    texts = [name for name, column in columns if column.kind == "text"]
    note = f"Free text, of which only the length is told: {', '.join(texts)}." if texts else ""
    told += f"<p>{escape(note)}</p>" if note else ""
    few = len(dataplots.drawable(profile)) > dataplots.MOST_COLUMNS
    return told + (f"<p>The plots show the first {dataplots.MOST_COLUMNS}.</p>" if few else "")


def _missing(column: Column, rows: int) -> str:
    return f"{column.missing:,} ({column.missing / max(rows, 1):.1%})" if column.missing else "0"


def _facts(kind: str, found: Numbers) -> list[str]:
    if kind == "time":
        days = f"{found.deviation / 86400:,.1f} days"
        return [_moment(found.low), _moment(found.mean), days, _moment(found.high)]
    return [_number(v) for v in (found.low, found.mean, found.deviation, found.high)]


def _values(values: Values) -> list[str]:
    common = list(values.rows.items())[:MOST_NAMES]
    more = "over " if values.others else ""
    names = ", ".join(f"{value} ({rows:,})" for value, rows in common)
    return [f"{more}{len(values.rows):,}", names]


def _drift(comparisons: Sequence[Comparison]) -> str:
    told = (
        "<p>The population stability index tells how far shares have moved: below 0.1 stable, "
        "above 0.25 a large shift. What so few rows show by chance stands beside it. New: the "
        "share of rows with a value, or beyond the range, that the reference never had.</p>"
    )
    for comparison in comparisons:
        told += f"<p><b>{escape(_sentence(drifted(comparison)))}</b></p>"
        if comparison.drifts:
            rows = [_moved(drift) for drift in comparison.drifts]
            told += _table(["what", "#index", "#by chance", "reading", "#new", "note"], rows)
    return told


def _moved(drift: Drift) -> list[str]:
    numbers = [f"{v:.3f}" if v is not None else "–" for v in (drift.index, drift.chance)]
    unseen = f"{drift.unseen:.1%}" if drift.unseen is not None else "–"
    return [drift.name, *numbers, drift.reading, unseen, drift.why]


def _picture(pictures: dict[str, str], *names: str) -> str:
    return "".join(
        f'<p><img src="{pictures[name]}" alt="Plot: {name}"></p>'
        for name in names
        if name in pictures
    )


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(_sentence(line))}</li>" for line in lines) + "</ul>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text, if there is any; a column whose name begins with # holds numbers."""
    if not rows:
        return ""
    looks = [' class="number"' if name.startswith("#") else "" for name in header]
    head = "".join(
        f"<th{look}>{escape(name.lstrip('#'))}</th>"
        for name, look in zip(header, looks, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, look) for cell, look in zip(row, looks, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _cell(text: str, look: str) -> str:
    look = f' class="{CLASSES[text]}"' if text in CLASSES else look
    return f"<td{look}>{escape(text)}</td>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
