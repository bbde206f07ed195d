"""The plots of a data report: what became of its rows, how they spread, how far they have moved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ray_jobs.data.drift import LARGE, STABLE
from ray_jobs.data.profile import Column, Key, Profile
from ray_jobs.data.spread import Numbers, Spread
from tasks.drawing import BLUE, GREEN, GREY, ORANGE, blank, label, sheet, tidy
from tasks.sheet import Comparison, Sheet

MOST_COLUMNS = 24  # drawn; the table holds all
ACROSS = 3  # columns beside each other
MOST_LINES = 40
BARS = 40
NAMES = 6  # values of a category that are drawn
LEAST_INDEX = 1e-3  # drawn; what has moved less stands there
MARKS = ((BLUE, "o", -0.12), (ORANGE, "D", 0.12))  # of comparisons


def draw(told: Sheet) -> dict[str, Figure]:
    """Every plot by name, of what there is."""
    figures = {"accounts": accounts(told)}
    profile = told.profile
    if profile is None:
        return figures
    if profile.keys:
        figures["keys"] = keys(profile, told.rows)
    if time := times(profile):
        figures["time"] = over_time(time, told.rows)
    if gaps(profile):
        figures["missing"] = missing(profile)
    if shown := drawable(profile):
        figures["columns"] = columns(dict(list(shown.items())[:MOST_COLUMNS]))
    if any(drift.index is not None for c in told.comparisons for drift in c.drifts):
        figures["drift"] = drift(told.comparisons)
    return figures


def accounts(told: Sheet) -> Figure:
    """What became of every row that was read."""
    table = told.table
    parts = {"kept": (table.kept, BLUE)}
    parts |= {f"quarantined: {r}": (n, ORANGE) for r, n in table.quarantined.items()}
    parts |= {"merged": (table.merged, GREEN), "repeats": (table.repeats, GREY)}
    title = f"What became of {table.read:,} rows?"
    figure, axes = blank(title, height=0.9 + 0.3 * len(parts))
    counts = [count for count, _ in parts.values()]
    bars = axes.barh(range(len(parts)), counts, color=[colour for _, colour in parts.values()])
    shares = [f" {count:,} ({count / max(table.read, 1):.1%})" for count in counts]
    axes.bar_label(bars, shares, fontsize=9)
    axes.set_yticks(range(len(parts)), [label(name) for name in parts])
    axes.invert_yaxis()
    axes.set_xlim(0, max(1, *counts) * 1.25)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    return figure


def keys(profile: Profile, rows: str) -> Figure:
    """How many rows each learner, item and skill has, and how they fare."""
    graded = any(key.label for key in profile.keys.values())
    figure = sheet(2.2 * len(profile.keys))
    grid = figure.subplots(len(profile.keys), 1 + graded, squeeze=False)
    for (name, key), row in zip(profile.keys.items(), grid, strict=True):
        _counts_of(row[0], name, key, rows)
        if key.label:
            title = f"mean {label(profile.label)} per {label(name)}"
            _histogram(row[1], key.label, title)
        elif graded:
            row[1].set_visible(False)
    return figure


def over_time(time: Numbers, rows: str) -> Figure:
    """How many rows there are of each time."""
    figure, axes = blank(f"When were the {rows} given?", height=3.0)
    edges, counts, left_out = _middle(time.spread)
    moments = [datetime.fromtimestamp(edge, UTC) for edge in edges]
    axes.stairs(counts, moments, fill=True, color=BLUE)  # type: ignore[arg-type]
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlabel(f"UTC; {left_out:,} {rows} further out" if left_out else "UTC")
    axes.set_ylabel(rows)
    _thousands(axes)
    return figure


def missing(profile: Profile) -> Figure:
    """The share of rows in which a column has nothing."""
    shown = list(gaps(profile).items())[:MOST_LINES]
    figure, axes = blank("What is missing?", height=1.0 + 0.27 * len(shown))
    bars = axes.barh(range(len(shown)), [share for _, share in shown], color=ORANGE)
    axes.bar_label(bars, [f" {share:.1%}" for _, share in shown], fontsize=9)
    axes.set_yticks(range(len(shown)), [label(name) for name, _ in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel("share of rows")
    return figure


def columns(shown: dict[str, Column]) -> Figure:
    """A small plot of each column: a histogram, or the most common values."""
    down = -(-len(shown) // ACROSS)
    figure = sheet(2.1 * down)
    places = figure.subplots(down, ACROSS, squeeze=False).ravel()
    for (name, column), axes in zip(shown.items(), places, strict=False):
        if column.numbers:
            _histogram(axes, column.numbers, label(name, 24))
        elif column.values:
            _common(axes, name, column)
    for axes in places[len(shown) :]:
        axes.set_visible(False)
    return figure


def drift(comparisons: Sequence[Comparison]) -> Figure:
    """How far each column has moved, against each reference; the farthest at the top."""
    moved = [
        {drift.name: drift.index for drift in comparison.drifts if drift.index is not None}
        for comparison in comparisons
    ]
    far = {name: max(m.get(name, 0) for m in moved) for name in dict.fromkeys(chain(*moved))}
    shown = sorted(far, key=lambda name: -far[name])[:MOST_LINES]
    figure, axes = blank("How far has the data moved?", height=1.9 + 0.27 * len(shown))
    for comparison, indices, (colour, mark, aside) in zip(comparisons, moved, MARKS, strict=False):
        points = [
            (max(indices[name], LEAST_INDEX), at + aside)
            for at, name in enumerate(shown)
            if name in indices
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, mark, color=colour, label=f"against {comparison.against}")
    axes.set_yticks(range(len(shown)), [label(name) for name in shown])
    axes.set_ylim(len(shown) - 0.3, -0.7)
    _scale_of_drift(axes, max(far.values()))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _scale_of_drift(axes: Axes, most: float) -> None:
    for limit, word in ((STABLE, "moderate"), (LARGE, "large")):
        axes.axvline(limit, color=GREY, linewidth=1, linestyle=":")
        above = axes.get_xaxis_transform()
        axes.text(limit, 1, f" {word}", fontsize=8, color="#555555", transform=above)
    axes.set_xscale("log")
    axes.set_xlim(LEAST_INDEX * 0.8, 1.3 * max(1, most))
    axes.grid(axis="y", color="#EEEEEE")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(f"population stability index; {LEAST_INDEX:g}: that or less")


def times(profile: Profile) -> Numbers | None:
    """The times of the rows, where there are any."""
    found = [column.numbers for column in profile.columns.values() if column.kind == "time"]
    return next((numbers for numbers in found if numbers and numbers.high > numbers.low), None)


def drawable(profile: Profile) -> dict[str, Column]:
    """Columns of which a picture tells something."""
    return {
        name: column
        for name, column in profile.columns.items()
        if (column.values and len(column.values.rows) > 1)
        or (column.kind == "number" and column.numbers and column.numbers.high > column.numbers.low)
    }


def gaps(profile: Profile) -> dict[str, float]:
    """The share of rows that columns lack, the most first; what is empty has no gaps."""
    shares = {name: c.missing / max(profile.rows, 1) for name, c in profile.columns.items()}
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return {name: share for name, share in ordered if 0 < share < 1}


def _counts_of(axes: Axes, name: str, key: Key, rows: str) -> None:
    low, high = key.rows.low, key.rows.high
    tidy(axes, "")
    axes.set_title(f"{rows} per {label(name)} ({key.count:,})", loc="left", fontsize=10)
    bars = _bars(key.count)
    if high / low > 30:
        edges = np.unique(np.round(np.geomspace(low, high + 1, bars + 1)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    else:
        step = max(1, round((high - low) / bars))
        edges = np.arange(low, high + step + 1, step)
    found, counts = key.rows.spread.histogram(edges.tolist())
    axes.stairs(counts, found, fill=True, color=BLUE)
    _thousands(axes)


def _histogram(axes: Axes, numbers: Numbers, title: str) -> None:
    tidy(axes, "")
    axes.set_title(title, loc="left", fontsize=10)
    edges, counts, _ = _middle(numbers.spread)
    axes.stairs(counts, edges, fill=True, color=BLUE)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _thousands(axes)


def _middle(spread: Spread) -> tuple[list[float], list[int], int]:
    """A histogram of all but stragglers that would flatten it, and how many those are."""
    low, high = spread.values[0], spread.values[-1]
    inner = spread.quantiles((0.001, 0.999))
    if high - low > 3 * (inner[1] - inner[0]) > 0:
        low, high = inner
    edges, counts = spread.histogram(np.linspace(low, high, _bars(spread.total) + 1).tolist())
    return edges, counts, spread.total - sum(counts)


def _bars(rows: int) -> int:
    """How many bars so many rows fill (the Rice rule)."""
    return min(BARS, int(2 * np.cbrt(rows)) + 1)


def _common(axes: Axes, name: str, column: Column) -> None:
    assert column.values is not None
    shown = list(column.values.rows.items())[:NAMES]
    tidy(axes, "")
    more = f" ({len(column.values.rows):,} values)" if len(column.values.rows) > NAMES else ""
    axes.set_title(f"{label(name, 20)}{more}", loc="left", fontsize=10)
    axes.barh(range(len(shown)), [rows for _, rows in shown], color=BLUE)
    axes.set_yticks(range(len(shown)), [label(value, 16) for value, _ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _thousands(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(bottom=0)
