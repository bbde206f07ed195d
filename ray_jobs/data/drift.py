"""How far a table has moved from a reference: population stability index, and what is new.

The index is sum((q - p) ln(q / p)) over the shares p and q of both in the same
bins. Usual readings: below 0.1 stable, above 0.25 a large shift (Siddiqi, Credit
Risk Scorecards, 2006); chance alone gives what Yurdakul and Naranjo (2020) found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_jobs.data.profile import Column, Profile, Values
from ray_jobs.data.spread import Numbers

BINS = 10  # of numbers, of equal weight in the reference
COMMON = 20  # values of the reference with a bin of their own
FEWEST = 50  # rows of either; with fewer, bins are empty by chance
LEAST = 1e-4  # share of a bin, so that an empty one has a logarithm
STABLE, LARGE = 0.1, 0.25


@dataclass(frozen=True)
class Drift:
    """How far one thing has moved."""

    name: str  # a column, or what is told of a key: "rows per item"
    index: float | None  # None: it cannot be compared, and `why` says so
    chance: float | None  # what the index would hardly exceed, had nothing moved
    unseen: float | None  # share of rows with a value, or beyond a range, new to the reference
    why: str = ""  # what could not be told, and for which reason

    @property
    def reading(self) -> str:
        """In a word."""
        if self.index is None:
            return "not compared"
        if self.index < STABLE:
            return "stable"
        if self.chance is not None and self.index <= self.chance:
            return "too few to tell"
        return "moderate" if self.index <= LARGE else "large"


def drifts(now: Profile, reference: Profile) -> list[Drift]:
    """Every column of either, then how rows and labels spread over each key of both."""
    names = dict.fromkeys([*now.columns, *reference.columns])
    found = [_column(name, now.columns.get(name), reference.columns.get(name)) for name in names]
    shared = [name for name in now.keys if name in reference.keys]
    # Of an item there are more rows whenever there are more rows: its column tells of its share.
    for name in shared:
        mine, theirs = now.keys[name], reference.keys[name]
        if name == now.group:
            found.append(_numbers(f"rows per {name}", mine.rows, theirs.rows))
        if mine.label and theirs.label:
            found.append(_numbers(f"{now.label} per {name}", mine.label, theirs.label))
    return found


def stability(p: ArrayLike, q: ArrayLike) -> float:
    """The population stability index of rows in the same bins; equal both ways."""
    before, after = (_shares(rows) for rows in (p, q))
    return float(((after - before) * np.log(after / before)).sum())


def by_chance(p: ArrayLike, q: ArrayLike) -> float:
    """What the index of two samples of one population exceeds about once in forty times.

    It is (1/n + 1/m) times chi-square with one degree of freedom fewer than bins
    that either fills, were rows independent; mean plus twice its deviation.
    """
    before, after = np.asarray(p, np.float64), np.asarray(q, np.float64)
    freedom = max(int(((before + after) > 0).sum()) - 1, 0)
    return float((1 / before.sum() + 1 / after.sum()) * (freedom + 2 * np.sqrt(2 * freedom)))


def _shares(rows: ArrayLike) -> NDArray[np.float64]:
    counted = np.asarray(rows, np.float64)
    shares: NDArray[np.float64] = np.maximum(counted / counted.sum(), LEAST)
    return shares


def _column(name: str, now: Column | None, then: Column | None) -> Drift:
    if now is None or then is None:
        return _not(name, "the reference has no such column" if now else "the column is gone")
    if now.kind != then.kind:
        return _not(name, f"it was a {then.kind}, and is a {now.kind}")
    if now.kind == "time":
        return _not(name, "times move on by themselves")
    if now.values and then.values:
        return _values(name, now.values, then.values, (now.missing, then.missing))
    if not then.numbers or not now.numbers:
        return _not(name, f"all is missing {'in the reference' if now.numbers else 'now'}")
    name = f"characters of {name}" if now.kind == "text" else name
    return _numbers(name, now.numbers, then.numbers, (now.missing, then.missing))


def _numbers(name: str, now: Numbers, then: Numbers, missing: tuple[int, int] = (0, 0)) -> Drift:
    if fault := _too_few(now.rows + missing[0], then.rows + missing[1]):
        return _not(name, fault)
    edges = then.spread.edges(BINS)
    p = [*then.spread.counts(edges), missing[1]]
    q = [*now.spread.counts(edges), missing[0]]
    beyond = [
        r
        for v, r in zip(now.spread.values, now.spread.rows, strict=True)
        if not then.low <= v <= then.high
    ]
    return Drift(name, stability(p, q), by_chance(p, q), sum(beyond) / now.rows)


def _values(name: str, now: Values, then: Values, missing: tuple[int, int]) -> Drift:
    if fault := _too_few(now.total + missing[0], then.total + missing[1]):
        return _not(name, fault)
    common = list(then.rows)[:COMMON]
    p, q = (_binned(*side, common) for side in ((then, missing[1]), (now, missing[0])))
    whole = not (now.others or then.others)
    why = "" if whole else "too many values to know which are new"
    new = sum(rows for value, rows in now.rows.items() if value not in then.rows)
    unseen = new / max(now.total, 1) if whole else None
    return Drift(name, stability(p, q), by_chance(p, q), unseen, why)


def _binned(values: Values, missing: int, common: Sequence[str]) -> list[int]:
    own = [values.rows.get(value, 0) for value in common]
    return [*own, values.total - sum(own), missing]


def _too_few(now: int, then: int) -> str:
    few = min(now, then)
    return "" if few >= FEWEST else f"{few} are too few to compare; {FEWEST} are needed"


def _not(name: str, why: str) -> Drift:
    return Drift(name, None, None, None, why)
