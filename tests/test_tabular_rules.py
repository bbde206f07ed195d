"""What a table's columns hold, which rows break it, and which columns know too much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ray_jobs.data.sources import find
from ray_jobs.errors import ContractError
from ray_jobs.families.tabular import formats
from ray_jobs.families.tabular.kinds import kind_of, label_kind
from ray_jobs.families.tabular.table import Columns, features
from tests.tabular_parts import cleaned, written

N = 300
RNG = np.random.default_rng(0)
HOURS = RNG.normal(5, 2, N).round(3).tolist()
NOISE = RNG.normal(0, 1, N)
LABEL = ["pass" if h + noise > 5 else "fail" for h, noise in zip(HOURS, NOISE, strict=True)]


def table(folder: Path, **columns: Sequence[Any]) -> Path:
    return written(folder / "cases.csv", {"hours": HOURS, "label": LABEL, **columns})


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1.5", "2", None, "-3e2"], "number"),
        (["1", "2", "3"] * 30 + ["x"], "number"),  # a slip, which is quarantined
        (["1", "2", "x"] * 30, "category"),
        (["north", "south", None], "category"),
        (["7", "7", None], "constant"),
        ([None, None], "constant"),
        ([str(i) for i in range(100, 200)], "row number"),
        ([str(i * 2) for i in range(100)], "number"),
        (["2026-01-01 10:00:00", "2026-01-02 11:30:00"] * 5, "moment"),
        ([f"Ada {i}" for i in range(100)], "names or free text"),
        ([f"place {i % 60}" for i in range(600)], "category"),
    ],
)
def test_a_column_is_told_by_its_values(values: list[str | None], kind: str) -> None:
    assert kind_of(pl.Series(values, dtype=pl.String)) == kind


@pytest.mark.parametrize(
    ("values", "asked", "kind"),
    [
        (["0", "1"], "auto", "binary"),
        (["yes", "no", None], "auto", "binary"),
        (["a", "b", "c"], "auto", "classes"),
        (["1", "2", "3"], "auto", "classes"),
        (["1", "2", "3"], "number", "number"),
        ([str(i) for i in range(21)], "auto", "number"),
        (["1.5", "2.5", "3"], "auto", "number"),
        ([str(i) for i in range(21)], "classes", "classes"),
        (["0", "1"], "classes", "binary"),
    ],
)
def test_a_label_is_told_by_its_values_or_by_who_asks(
    values: list[str], asked: str, kind: str
) -> None:
    assert label_kind(pl.Series(values, dtype=pl.String), asked, "grade") == kind


@pytest.mark.parametrize(
    ("values", "asked", "said"),
    [
        (["1", "1"], "auto", "'1' in every row"),
        ([None], "auto", "empty in every row"),
        (["a", "b", "c"], "binary", "has 3 values"),
        ([str(i) for i in range(60)], "classes", "60 values, more classes than 50"),
        (["a", "b"], "colour", "expected auto, binary, classes, number"),
    ],
)
def test_a_label_that_is_none_is_refused(values: list[str | None], asked: str, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        label_kind(pl.Series(values, dtype=pl.String), asked, "grade")


def test_each_bad_row_goes_under_its_reason_and_no_good_one_does(tmp_path: Path) -> None:
    labels: list[str | None] = list(LABEL)
    labels[0], labels[1], labels[2] = None, "perhaps", "NA"
    hours: list[object] = [str(h) for h in HOURS]
    hours[3], hours[4], hours[5] = "many", "inf", ""
    found = cleaned(table(tmp_path, label=labels, hours=hours))
    assert dict(found.bad.group_by("reason").len().iter_rows()) == {
        "missing_label": 2, "rare_class": 1, "invalid_hours": 2,
    }  # fmt: skip
    assert sorted(found.bad["position"]) == [0, 1, 2, 3, 4]
    assert len(found.table) == N - 5
    assert found.table["x:hours"].null_count() == 1, "missing is no fault"


def test_what_nothing_is_learnt_from_is_left_out_and_said(tmp_path: Path) -> None:
    extra = {"id": range(1, N + 1), "school": ["A"] * N, "note": [f"Ada {i}" for i in range(N)]}
    found = cleaned(table(tmp_path, **extra))
    assert features(found.table) == ["hours"]
    told = " ".join(found.notes)
    for words in ("row number: id", "constant: school", "names or free text: note"):
        assert words in told
    assert "label is predicted from 1 columns (one of two outcomes)" in told


def test_nothing_but_such_columns_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "c.csv", {"id": range(N), "label": LABEL})
    with pytest.raises(ContractError, match="no column is left to predict label from"):
        cleaned(path)


def test_roles_that_are_named_are_no_features(tmp_path: Path) -> None:
    days = [f"2026-01-{1 + i % 28:02d}" for i in range(N)]
    path = table(tmp_path, who=[f"p{i % 40}" for i in range(N)], when=days, note=HOURS)
    found = cleaned(path, timed=True, group="who", time="when", ignore="note")
    assert features(found.table) == ["hours"]
    assert found.table["group"].n_unique() == 40
    assert found.table["time"].null_count() == 0
    with pytest.raises(ContractError, match=r"no column 'where' \(columns.group\)"):
        cleaned(path, group="where")


def test_copies_of_a_row_are_one_group_and_others_are_their_own(tmp_path: Path) -> None:
    path = written(tmp_path / "c.csv", {"hours": HOURS + HOURS[:5], "label": LABEL + LABEL[:5]})
    found = cleaned(path)
    assert len(found.table) == N + 5
    assert found.table["group"].n_unique() == len(set(zip(HOURS, LABEL, strict=True)))


LEAKS: dict[str, tuple[list[Any], str]] = {
    "the label again": (LABEL, "its values give the label"),
    "another word for it": (["went well" if x == "pass" else "did not" for x in LABEL], "give the"),
    "a number that ranks it": (
        [h + 100 * (x == "pass") for h, x in zip(HOURS, LABEL, strict=True)], "AUC 1.0000",
    ),
    "a date that only some have": (
        [str(h) if x == "fail" else None for h, x in zip(HOURS, LABEL, strict=True)], "have it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", LEAKS)
def test_a_column_that_tells_the_label_is_refused_by_name(what: str, tmp_path: Path) -> None:
    values, how = LEAKS[what]
    path = table(tmp_path, after=values)
    with pytest.raises(ContractError, match=f"after.*{how}") as caught:
        cleaned(path)
    assert "columns.ignore=after" in str(caught.value)
    assert features(cleaned(path, ignore="after").table) == ["hours"]
    assert set(features(cleaned(path, allow="after").table)) == {"hours", "after"}


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_a_column_that_tells_a_number_is_refused(noise: float, tmp_path: Path) -> None:
    grade = RNG.normal(10, 3, N)
    after = (grade * 5 + RNG.normal(0, noise + 1e-12, N)).tolist()
    path = written(tmp_path / "c.csv", {"hours": HOURS, "after": after, "grade": grade.tolist()})
    with pytest.raises(ContractError, match="its order is that of the label"):
        cleaned(path, label="grade")


def test_a_strong_column_that_does_not_tell_the_label_is_no_leak(tmp_path: Path) -> None:
    grade = RNG.normal(10, 3, N)
    before = (grade + RNG.normal(0, 1, N)).tolist()  # rank correlation about .95
    path = written(tmp_path / "c.csv", {"before": before, "grade": grade.tolist()})
    assert features(cleaned(path, label="grade").table) == ["before"]
    sparse = [label if i % 40 == 0 else None for i, label in enumerate(LABEL)]
    assert "note" in features(cleaned(table(tmp_path, note=sparse)).table), "too few to tell"


def test_an_id_of_people_beside_the_group_is_left_out_unless_it_is_asked_for(
    tmp_path: Path,
) -> None:
    ids = {"learner": [f"l{n}" for n in range(N)], "student_id": [f"a{n}@b.c" for n in range(N)]}
    (source,) = find(str(table(tmp_path, **ids)))
    (raw,) = formats.read([source], Columns())
    assert "student_id" not in features(raw.rows)
    assert any("since they name people: student_id" in note for note in raw.notes)
    (asked,) = formats.read([source], Columns(allow="student_id"))
    assert "student_id" in features(asked.rows)
