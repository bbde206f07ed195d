"""What the parts of a report promise: each row counted where a plain reading puts it."""

from __future__ import annotations

from collections import Counter

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.families.knowledge.slices import TOP, slices
from ray_jobs.families.knowledge.vocabulary import Vocabulary

NAMES = [f"s{n:02}" for n in range(14)]
KNOWN = Vocabulary(("i1", "i2"), tuple(NAMES[:9]))
HISTORY = {1: "first answer", 10: "answers 2-10", 50: "answers 11-50", 10**9: "answers 51+"}

Row = tuple[str, list[str], bool]  # item, skills, scored
rows = st.lists(
    st.tuples(
        st.sampled_from(["i1", "i2", "i3"]),
        st.sets(st.sampled_from(NAMES), max_size=5).map(sorted),
        st.booleans(),
    ),
    min_size=1,
    max_size=70,
)


def plain(logs: list[list[Row]]) -> list[tuple[str, str, str, list[str], str]]:
    """History, item, skills, named skills and their number of each row, one by one."""
    scored = Counter(s for log in logs for _, names, scored in log if scored for s in names)
    top = sorted(scored, key=lambda name: (-scored[name], name))[:TOP]
    told = []
    for log in logs:
        for n, (item, names, _) in enumerate(log, start=1):
            known = "all met in training" if set(names) <= set(KNOWN.skills) else "some new"
            told.append(
                (
                    next(text for last, text in HISTORY.items() if n <= last),
                    "met in training" if item in KNOWN.items else "new",
                    known if names else "none named",
                    [name for name in names if name in top],
                    str(len(names)) if len(names) < 3 else "3+",
                )
            )
    return told


@settings(max_examples=50, deadline=None)
@given(st.lists(rows, min_size=1, max_size=3))
def test_each_row_is_counted_where_a_plain_reading_puts_it(logs: list[list[Row]]) -> None:
    answers = [(f"l{n}", *row) for n, log in enumerate(logs) for row in log]
    table = pl.DataFrame(
        answers,
        schema={
            "learner": pl.String,
            "item": pl.String,
            "skills": pl.List(pl.String),
            "scored": pl.Boolean,
        },
        orient="row",
    )
    found = slices(table, KNOWN).with_columns(pl.col("skill").list.sort())
    assert found.rows() == plain(logs)
