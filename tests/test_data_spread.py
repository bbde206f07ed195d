"""Numbers add up over parts: what is few stays exact, what is many keeps its ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data.spread import POINTS, Numbers, Spread

FEW = st.lists(st.integers(-40, 40).map(float), max_size=60)
PARTS = st.lists(FEW, min_size=1, max_size=5).filter(any)


def numbers(values: Any) -> Numbers | None:
    return Numbers.of(pl.Series(values, dtype=pl.Float64))


def spread_over(parts: list[np.ndarray]) -> Spread:
    return Spread.together([Spread.of(pl.Series(part)) for part in parts])


@given(PARTS)
def test_where_parts_end_leaves_no_trace_in_numbers(parts: list[list[float]]) -> None:
    whole, added = (
        numbers([v for part in parts for v in part]),
        Numbers.together([numbers(part) for part in parts]),
    )
    assert whole is not None
    assert added is not None
    exact = ("rows", "low", "high", "spread")
    assert [getattr(added, name) for name in exact] == [getattr(whole, name) for name in exact]
    assert added.mean == pytest.approx(whole.mean)
    assert added.deviation == pytest.approx(whole.deviation)


def test_mean_and_deviation_of_moments_are_those_of_numpy() -> None:
    """Unix seconds are large beside what they differ by: squares of them lose it."""
    times = 1.7e9 + np.random.default_rng(0).random(10_000)
    added = Numbers.together([numbers(part) for part in np.array_split(times, 7)])
    assert added is not None
    assert added.mean == pytest.approx(times.mean(), abs=1e-6)
    assert added.deviation == pytest.approx(times.std(ddof=1), rel=1e-6)


def test_nothing_is_known_of_no_numbers() -> None:
    assert numbers([]) is None
    assert Numbers.together([None, None]) is None
    assert Numbers.together([None, numbers([2.0])]) == numbers([2.0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from(["normal", "heavy", "steps"]))
def test_no_rank_moves_far_however_many_numbers_there_are(seed: int, parts: int, law: str) -> None:
    rng = np.random.default_rng(seed)
    many = {
        "normal": rng.normal(size=30_000),
        "heavy": rng.pareto(0.8, 30_000),
        "steps": np.where(rng.random(30_000) < 0.6, 0.0, rng.normal(size=30_000)),
    }[law]
    spread = spread_over(np.array_split(many, parts))
    assert len(spread.values) <= 3 * POINTS
    assert spread.total == len(many)
    ordered = np.sort(many)
    for share, found in zip((0.05, 0.5, 0.95), spread.quantiles((0.05, 0.5, 0.95)), strict=True):
        below, upto = (np.searchsorted(ordered, found, side) for side in ("left", "right"))
        room = 2 * len(many) / POINTS
        assert below - room <= share * len(many) <= upto + room, (share, found)


def test_what_many_rows_hold_stays_what_it_is_among_many_others() -> None:
    rng = np.random.default_rng(0)
    many = np.concatenate([np.full(5_000, 0.1), np.full(300, 0.7), rng.random(20_000)])
    rng.shuffle(many)
    spread = spread_over(np.array_split(many, 6))
    held = dict(zip(spread.values, spread.rows, strict=True))
    assert held[0.1] == 5_000
    assert held[0.7] == 300


@given(PARTS, st.integers(1, 12))
def test_bins_hold_every_row_once_and_a_heavy_number_alone(
    parts: list[list[float]], bins: int
) -> None:
    values = [v for part in parts for v in part]
    spread = Spread.of(pl.Series(values, dtype=pl.Float64))
    edges = spread.edges(bins)
    assert edges == sorted(set(edges))
    assert edges[-1] == max(values)
    counts = spread.counts(edges)
    assert counts.tolist() == [*(sum(a < v <= b for v in values) for a, b in _between(edges)), 0]
    for value in set(values):
        if values.count(value) >= len(values) / bins:
            place = edges.index(value)
            assert counts[place] == values.count(value)


def _between(edges: list[float]) -> list[tuple[float, float]]:
    return list(zip([float("-inf"), *edges[:-1]], edges, strict=True))


def test_a_histogram_holds_every_row() -> None:
    spread = Spread([1.0, 2.0, 4.0], [5, 1, 2])
    edges, rows = spread.histogram(3)
    assert (edges, rows) == ([1.0, 2.0, 3.0, 4.0], [5, 1, 2])
    assert spread.histogram([0, 3, 9]) == ([0, 3, 9], [6, 2])
