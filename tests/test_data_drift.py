"""Drift: nothing where nothing moved, the figure of a pocket calculator where something did."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.data.drift import Drift, by_chance, drifts, stability
from ray_jobs.data.profile import Column, Key, Profile, Values
from ray_jobs.data.spread import Numbers

COUNTS = st.lists(st.tuples(st.integers(1, 999), st.integers(1, 999)), min_size=2, max_size=9)


def number(values: Any, missing: int = 0, kind: str = "number") -> Column:
    return Column(kind, missing, Numbers.of(pl.Series(values, dtype=pl.Float64)), None)


def category(rows: dict[str, int], missing: int = 0, others: int = 0) -> Column:
    return Column("category", missing, None, Values(rows, others))


def told(keys: dict[str, Key] | None = None, **columns: Column) -> Profile:
    return Profile(100, 50, "learner", "correct", columns, keys or {})


def moved(now: Column, then: Column) -> Drift:
    (found,) = drifts(told(column=now), told(column=then))
    return found


def test_the_index_is_that_of_a_pocket_calculator() -> None:
    by_hand = (0.75 - 0.5) * math.log(0.75 / 0.5) + (0.25 - 0.5) * math.log(0.25 / 0.5)
    assert (
        stability([50, 50], [75, 25]) == pytest.approx(by_hand) == pytest.approx(0.27465, abs=1e-5)
    )
    assert stability([500, 500], [3, 1]) == pytest.approx(by_hand), "shares, not rows"


@given(COUNTS)
def test_the_index_is_equal_both_ways_and_zero_for_equal_shares(
    counts: list[tuple[int, int]],
) -> None:
    p, q = zip(*counts, strict=True)
    assert stability(p, q) == pytest.approx(stability(q, p))
    assert stability(p, p) == 0
    assert stability(p, [3 * n for n in p]) == pytest.approx(0, abs=1e-12)
    assert stability(p, q) >= 0


@given(COUNTS)
def test_bins_put_together_show_less(counts: list[tuple[int, int]]) -> None:
    p, q = (np.array(side) for side in zip(*counts, strict=True))
    fewer = stability([p[0] + p[1], *p[2:]], [q[0] + q[1], *q[2:]])
    assert fewer <= stability(p, q) + 1e-9


def test_chance_seldom_shows_more_than_it_is_said_to() -> None:
    rng = np.random.default_rng(0)
    shares = [0.1] * 10
    draws = [(rng.multinomial(400, shares), rng.multinomial(900, shares)) for _ in range(400)]
    beyond = np.mean([stability(p, q) > by_chance(p, q) for p, q in draws])
    assert 0.005 < beyond < 0.08


def test_what_has_not_moved_is_stable_in_everything() -> None:
    rng = np.random.default_rng(0)
    hours = number(rng.normal(size=5_000), missing=7)
    mine = told(hours=hours, item=category({"a": 60, "b": 40}))
    for found in drifts(mine, mine):
        assert (found.index, found.unseen, found.reading, found.why) == (0, 0, "stable", "")


def test_what_has_moved_is_read_as_the_books_do() -> None:
    rng = np.random.default_rng(0)
    then = number(rng.normal(size=20_000))
    readings = [moved(number(rng.normal(by, size=20_000)), then).reading for by in (0.1, 0.4, 1)]
    assert readings == ["stable", "moderate", "large"]
    few = moved(number(rng.normal(0.2, size=60)), number(rng.normal(size=60)))
    assert few.reading == "too few to tell"
    assert few.index is not None
    assert few.index > 0.1


def test_a_rare_outcome_that_becomes_common_is_seen() -> None:
    """Deciles of a column that is nearly always 1 are all 1, and tell 0 and 1 not apart."""
    assert moved(number([0] * 500 + [1] * 500), number([0] * 50 + [1] * 950)).reading == "large"


def test_missing_values_are_drift_too() -> None:
    values = np.arange(900.0)
    assert moved(number(values, missing=600), number(values, missing=9)).reading == "large"
    names = {"a": 500, "b": 400}
    assert moved(category(names, missing=600), category(names, missing=9)).reading == "large"


def test_what_the_reference_never_saw_is_a_share_of_rows() -> None:
    found = moved(category({"a": 60, "new": 30, "newer": 10}), category({"a": 80, "b": 20}))
    assert found.unseen == pytest.approx(0.4)
    beyond = moved(number(np.arange(100.0)), number(np.arange(20.0, 90.0)))
    assert beyond.unseen == pytest.approx(0.3)


def test_a_long_tail_of_names_is_compared_as_one_bin() -> None:
    """With a bin each, thousands of rare items would look like drift by chance alone."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, 5_000, 20_000) for _ in range(2)]
    sides = [category({str(k): int(n) for k, n in enumerate(np.bincount(d))}) for d in draws]
    found = moved(*sides)
    assert found.reading == "stable"


def test_what_cannot_be_told_says_why() -> None:
    some, names = number(np.arange(99.0)), category({"a": 99})
    because = {
        drift.name: drift.why
        for drift in drifts(
            told(
                new=some,
                turned=some,
                time=replace(some, kind="time"),
                empty=Column("number", 99, None, None),
                few=category({"a": 9}),
            ),
            told(gone=some, turned=names, time=replace(some, kind="time"), empty=some, few=names),
        )
    }
    assert because == {
        "new": "the reference has no such column",
        "gone": "the column is gone",
        "turned": "it was a category, and is a number",
        "time": "times move on by themselves",
        "empty": "all is missing now",
        "few": "9 are too few to compare; 50 are needed",
    }
    found = moved(names, category({"a": 99}, others=5))
    assert (found.unseen, found.why) == (None, "too many values to know which are new")
    assert found.index is not None


def test_learners_are_compared_by_rows_and_label_and_items_by_label_alone() -> None:
    """Of an item there are more rows whenever a log grows."""
    spread = Numbers.of(pl.Series(np.arange(60.0)))
    assert spread is not None
    keys = {"learner": Key(60, spread, spread, 0), "item": Key(60, spread, spread, 0)}
    names = [drift.name for drift in drifts(told(keys), told(keys))]
    assert names == ["rows per learner", "correct per learner", "correct per item"]
    ungraded = {"learner": Key(60, spread, None, 0)}
    assert [d.name for d in drifts(told(ungraded), told(keys))] == ["rows per learner"]
