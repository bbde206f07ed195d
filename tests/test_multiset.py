"""What digests of rows promise: the same rows, the same digest, and no other."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data import multiset
from ray_jobs.data.multiset import Content, hashes

# Short texts and long ones, of all lengths about a word; what is absent, and what is empty.
TEXT = (
    st.none()
    | st.text(st.sampled_from("ab\0é"), max_size=3)
    | st.sampled_from(["a" * n for n in (6, 7, 8, 9, 15, 16, 40)])
)
ROW = st.tuples(TEXT, TEXT, st.none() | st.integers(0, 2**64 - 1))
ROWS = st.lists(ROW, max_size=12)
SCHEMA = pl.Schema({"one": pl.String, "two": pl.String, "bucket": pl.UInt64})


def table(rows: list[tuple[str | None, str | None, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def content(rows: list[tuple[str | None, str | None, int | None]]) -> Content:
    return Content.of(table(rows))


@settings(deadline=None)
@given(ROWS, ROWS)
def test_rows_agree_as_a_heap_where_they_are_the_same_in_any_order(
    one: list[tuple[str | None, str | None, int | None]],
    other: list[tuple[str | None, str | None, int | None]],
) -> None:
    same = Counter(one) == Counter(other)
    heaps = {content(rows).digest(ordered=False) for rows in (one, other, other[::-1])}
    assert len(heaps) == (1 if same else 2)


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_rows_agree_as_a_series_in_their_order_alone(
    rows: list[tuple[str | None, str | None, int | None]], random: object
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert content(rows).heap == content(shuffled).heap
    same = content(rows).digest(ordered=True) == content(shuffled).digest(ordered=True)
    assert same == (rows == shuffled)


@settings(deadline=None)
@given(ROWS, st.integers(0, 12), st.integers(0, 12))
def test_what_files_amount_to_follows_from_each_wherever_one_ends(
    rows: list[tuple[str | None, str | None, int | None]], one: int, other: int
) -> None:
    low, high = sorted((one, other))
    parts = [content(part) for part in (rows[:low], rows[low:high], rows[high:])]
    assert parts[0].then(parts[1]).then(parts[2]) == content(rows)
    assert parts[0].then(parts[1].then(parts[2])) == content(rows)


def test_a_column_that_is_not_there_is_one_of_nulls_and_order_of_columns_is_nothing() -> None:
    rows = table([("a", None, 1), ("b", None, 2)])
    assert Content.of(rows) == Content.of(rows.drop("two"))
    assert Content.of(rows) == Content.of(rows.select("bucket", "two", "one"))
    assert Content.of(rows) != Content.of(rows.rename({"one": "two", "two": "one"}))


def test_how_many_rows_are_hashed_at_a_time_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table([("a" * n, None if n % 3 else "b" * n, n) for n in range(40)])
    whole = [lane.tolist() for lane in hashes(rows)]
    monkeypatch.setattr(multiset, "CACHED_ROWS", 7)
    assert [lane.tolist() for lane in hashes(rows)] == whole


def test_a_record_of_it_comes_back() -> None:
    found = content([("a", "b", 2**64 - 1), (None, "", 0)])
    assert Content.loads(found.as_dict()) == found


def test_digests_never_change_between_releases() -> None:
    """Golden: with others, every snapshot of before would be another."""
    found = content([("ann", "a longer text than a word", 7), ("bob", None, None)])
    assert found.digest(ordered=False)[:16] == "1fed72b929f0f3a2"
    assert found.digest(ordered=True)[:16] == "ceda06dcd2dc892b"
