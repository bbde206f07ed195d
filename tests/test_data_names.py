"""Which columns name people, and which numbers have a comma for a point."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ray_jobs.data.names import MOST_SHOWN, finds_people, shown
from ray_jobs.data.numbers import with_points
from tests.tabular_parts import cleaned, written

UUIDS = [f"0000000{n}-0000-4000-8000-00000000000{n}" for n in range(8)]


@pytest.mark.parametrize(
    ("name", "values", "people"),
    [
        ("Full name", [f"Ann {n}" for n in range(8)], True),
        ("E-Mail", [f"ann {n}" for n in range(8)], True),
        ("address", ["U", "R"] * 4, False),  # urban or rural, in a data set that people know
        ("who", [f"ann{n}@school.org" for n in range(8)], True),
        ("who", [*UUIDS[:5], "none", "none", "none"], True),
        ("who", ["ann@school.org", *["unknown"] * 7], False),
        ("game", [f"level {n}" for n in range(8)], False),
        ("name", [None] * 8, False),
    ],
)
def test_a_column_finds_people_by_its_name_or_by_what_it_holds(
    name: str, values: list[str | None], people: bool
) -> None:
    assert finds_people(pl.Series(name, values, dtype=pl.String)) is people


@pytest.mark.parametrize(
    ("texts", "points"),
    [
        (["1,5", "-2,25", "3", None], ["1.5", "-2.25", "3", None]),
        (["1,500", "2,250"], ["1,500", "2,250"]),  # thousands, perhaps
        (["1,500", "2,25"], ["1.500", "2.25"]),
        (["1,5", "2.5"], ["1,5", "2.5"]),
        (["1,5", "many"], ["1,5", "many"]),
        (["1,5,7"], ["1,5,7"]),
        ([",5", "1,0"], [".5", "1.0"]),
        ([None], [None]),
    ],
)
def test_a_comma_is_a_point_where_all_numbers_of_a_column_may_have_one(
    texts: list[str | None], points: list[str | None]
) -> None:
    assert with_points(pl.Series(texts, dtype=pl.String)).to_list() == points


def test_names_are_shown_and_values_are_not() -> None:
    assert shown(["learner", "x1", "G2"]) == "learner, x1, G2"
    assert shown([f"c{n}" for n in range(99)]).endswith(f"c{MOST_SHOWN - 1}, ...")
    for value in ("17", "2024-01-05T10:00", "ann@school.org", UUIDS[3], "1.5"):
        assert value not in shown(["learner", value])


def test_a_table_keeps_no_column_that_finds_people_unless_it_is_asked_for(tmp_path: Path) -> None:
    columns = {
        "email": [f"s{n}@school.org" for n in range(40)],
        "hours": [f"{n % 7},5" for n in range(40)],
        "passed": ["yes", "no"] * 20,
    }
    path = written(tmp_path / "log.csv", columns)
    assert [c for c in cleaned(path).table.columns if c.startswith("x:")] == ["x:hours"]
    assert cleaned(path).table["x:hours"].to_list()[:2] == [0.5, 1.5]
    assert "x:email" in cleaned(path, allow="email").table.columns
