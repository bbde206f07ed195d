"""What a profile tells of a table, and what it never tells: who is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_jobs.data import profile as profiling
from ray_jobs.data import tally
from ray_jobs.data.profile import Profile, profile
from ray_jobs.data.tables import write_part
from ray_jobs.families.knowledge.table import CLEAN

KEYS = ("item", "skills")
ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(["ada", "bob", "cy", "di"]),
        st.sampled_from(["i1", "i2", "i3"]),
        st.lists(st.sampled_from(["add", "sub"]), max_size=2, unique=True),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.none() | st.integers(0, 9).map(float),
    ),
    min_size=1,
    max_size=30,
)


def table(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """A clean table of answers: learner, item, skills, correct, time."""
    full = [(*row, 0, 2**63 + ord(row[0][0]), None, True, None, None) for row in rows]
    return pl.DataFrame(full, CLEAN, orient="row")


def profiled(folder: Path, *parts: pl.DataFrame, keys: tuple[str, ...] = KEYS) -> Profile:
    for number, part in enumerate(parts):
        write_part(str(folder), number, part)
    return profile(str(folder), group="learner", label="correct", keys=keys)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ANSWERS, st.integers(1, 4))
def test_where_parts_end_leaves_no_trace(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], at_a_time: int
) -> None:
    whole = profiled(tmp_path_factory.mktemp("whole"), table(rows))
    parts = [table([row for row in rows if row[0] == name]) for name in ("ada", "bob", "cy", "di")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "AT_A_TIME", at_a_time)
        added = profiled(tmp_path_factory.mktemp("parts"), *parts)
    assert _rounded(added.as_dict()) == _rounded(whole.as_dict())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


def test_a_table_is_told_in_numbers_that_can_be_counted_by_hand(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [
        ("ada", "i1", ["add"], 1.0, 10.0),
        ("ada", "i2", ["add", "sub"], 0.0, 20.0),
        ("ada", "i1", [], 1.0, None),
        ("bob", "i1", ["sub"], 0.5, 40.0),
    ]
    found = profiled(tmp_path, table(rows))
    assert (found.rows, found.groups) == (4, 2)
    kinds = {name: (column.kind, column.missing) for name, column in found.columns.items()}
    assert kinds == {
        "item": ("category", 0), "skills": ("set", 1), "correct": ("number", 0),
        "time": ("time", 1), "scored": ("category", 0), "response_s": ("number", 4),
    }  # fmt: skip
    item, skills, correct = (found.columns[name] for name in ("item", "skills", "correct"))
    assert item.values is not None
    assert skills.values is not None
    assert correct.numbers is not None
    assert list(item.values.rows.items()) == [("i1", 3), ("i2", 1)]
    assert skills.values.rows == {"add": 2, "sub": 2}
    numbers = correct.numbers
    assert (numbers.mean, numbers.low, numbers.high, numbers.rows) == (0.625, 0, 1, 4)
    assert numbers.deviation == pytest.approx(0.478714)
    learner, practised = found.keys["learner"], found.keys["skills"]
    assert (learner.count, learner.rows.spread.values) == (2, [1, 3])
    assert learner.label is not None
    assert learner.label.spread.values == pytest.approx([0.5, 2 / 3])
    assert practised.label is not None
    assert practised.label.spread.values == pytest.approx([0.25, 0.5])


def test_a_profile_is_kept_as_json_and_read_again(tmp_path: Path) -> None:
    found = profiled(tmp_path, table([("ada", "i1", [], 1.0, None), ("bob", "i2", ["a"], 0.0, 5)]))
    assert Profile.loads(orjson.loads(orjson.dumps(found.as_dict()))) == found


def test_nobody_is_named_and_no_free_text_is_told(tmp_path: Path) -> None:
    """Not even where each row is a group, or a text column holds what each person wrote."""
    names = [f"pseudonym-{i}" for i in range(200)]
    rows = pl.DataFrame(
        {
            "learner": names,
            "essay": [f"my name is number {i}" for i in range(200)],
            "school": ["north", "south"] * 100,
            "correct": [1.0] * 200,
            "bucket": pl.Series(range(7_000_000, 7_000_200), dtype=pl.UInt64),
        }
    )
    found = profiled(tmp_path, rows, keys=())
    text = orjson.dumps(found.as_dict()).decode()
    assert "pseudonym" not in text
    assert "my name" not in text
    assert "70000" not in text
    assert '"north":100' in text
    assert (found.groups, found.keys) == (200, {}), "a row each: nothing spreads"
    essay = found.columns["essay"]
    assert essay.kind == "text"
    assert essay.numbers is not None
    assert (essay.numbers.low, essay.numbers.high) == (19, 21)


def test_an_item_bank_of_which_each_is_asked_once_is_no_free_text(tmp_path: Path) -> None:
    found = profiled(tmp_path, table([("ada", f"i{i}", [], 1.0, None) for i in range(99)]))
    assert found.columns["item"].kind == "category"
    assert found.keys["item"].count == 99


def test_too_many_values_are_counted_as_others_and_no_row_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "MOST_VALUES", 3)
    items = [f"i{i}" for i in range(9) for _ in range(9 - i)]
    rows: list[tuple[Any, ...]] = [("ada", item, [], 1.0, None) for item in items]
    found = profiled(tmp_path, table(rows), table([("bob", *row[1:]) for row in rows]))
    values = found.columns["item"].values
    assert values is not None
    assert (values.rows, values.others) == ({"i0": 18, "i1": 16, "i2": 14}, 90 - 48)
    assert values.total == found.rows
    assert found.keys["item"].others == values.others


def test_what_is_no_number_has_no_mean_and_what_is_none_is_missing(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "learner": ["ada", "ada", "bob"],
            "correct": ["yes", "no", None],
            "hours": [1.0, float("nan"), None],
            "never": pl.Series([None] * 3, dtype=pl.Float64),
        }
    )
    found = profiled(tmp_path, rows, keys=())
    assert found.keys["learner"].label is None
    assert {name: column.missing for name, column in found.columns.items()} == {
        "correct": 1, "hours": 2, "never": 3,
    }  # fmt: skip
    assert found.columns["never"].numbers is None
