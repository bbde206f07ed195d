"""What the rules make of raw rows: answers in order of time, and skills that are a set."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data.clean import Cleaned
from ray_jobs.families.knowledge import rules
from ray_jobs.families.knowledge.table import Columns

Row = tuple[str, str, str, str, str | None]  # learner, item, skills, correct, time
TEXTS = ("learner", "item", "skills", "correct", "time")
row = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["i1", "i2", "i3"]),
    st.sampled_from(["", "s1", "s2;s1", "s3"]),
    st.sampled_from(["0", "1", "0.5"]),
    st.integers(0, 9).map(str) | st.sampled_from(["", "soon"]),
)


def cleaned(rows: list[Row], *, timed: bool, columns: Columns | None = None) -> Cleaned:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(TEXTS, pl.String), orient="row")
    frame = frame.with_columns(pl.col(TEXTS).replace("", None), file=pl.lit("log.csv"))
    frame = frame.with_row_index("position").with_columns(
        line=pl.col("position") + 2, bucket=0, split=pl.lit(None, pl.String)
    )
    return rules.clean(frame, timed, columns or Columns())


@settings(max_examples=50, deadline=None)
@given(st.lists(row, min_size=1, max_size=20))
def test_a_learners_answers_stand_together_in_order_of_time_and_are_all_scored(
    rows: list[Row],
) -> None:
    table = cleaned(rows, timed=True).table
    moments = table.select("learner", "time", "item").rows()
    assert moments == sorted(moments)
    assert (
        table["position"] == table.select(pl.int_range(pl.len()).over("learner")).to_series()
    ).all()
    assert table["scored"].all()


@settings(max_examples=50, deadline=None)
@given(st.lists(row, min_size=1, max_size=20))
def test_without_times_the_order_of_delivery_stands_and_no_time_is_made_up(
    rows: list[Row],
) -> None:
    found = cleaned(rows, timed=False)
    assert found.bad.is_empty()
    assert found.repeats == 0
    assert found.table["time"].null_count() == len(found.table)
    places = found.table.select("learner", "position").rows()
    assert places == sorted(places)
    for position, learner, item, correct in found.table.select(
        "position", "learner", "item", "correct"
    ).iter_rows():
        first = rows[position]
        assert (learner, item, correct) == (first[0], first[1], float(first[3]))


def test_a_row_without_a_skill_adds_none_to_its_answer() -> None:
    parts: list[Row] = [("a", "i1", skills, "1", "5") for skills in ("s2", "", "s1")]
    other: Row = ("a", "i2", "", "1", "6")
    for timed in (True, False):
        found = cleaned([*parts, other], timed=timed)
        assert found.table["skills"].to_list() == [["s1", "s2"], []]
        assert found.merged == 2
