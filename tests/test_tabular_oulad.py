"""The Open University's files as known on a day: nothing in a row happened later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ray_jobs.data.raw import together
from ray_jobs.data.sources import find
from ray_jobs.errors import ContractError
from ray_jobs.families.tabular import formats, oulad
from ray_jobs.families.tabular.table import Columns
from tests.tabular_parts import written

REAL = Path(__file__).parents[2] / "shared" / "data" / "oulad"
real = pytest.mark.skipif(not REAL.exists(), reason="the data set is not on this machine")
COURSE = {"code_module": "AAA", "code_presentation": "2013J"}

# student: registered on, left on, result, and scores by assessment
STUDENTS: dict[int, tuple[int | None, int | None, str, dict[int, tuple[int, int]]]] = {
    1: (-10, None, "Pass", {11: (18, 80), 12: (50, 60), 13: (99, 90)}),
    2: (-5, None, "Fail", {11: (25, 40)}),  # handed in late
    3: (-5, 15, "Withdrawn", {}),
    4: (30, None, "Distinction", {12: (49, 95)}),  # came late
    5: (None, None, "Fail", {}),
}
DUE = {11: 20, 12: 54, 13: None}  # the exam's day is not told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a small course."""
    rows = list(STUDENTS.items())

    def course(count: int) -> dict[str, Sequence[Any]]:
        return {name: [value] * count for name, value in COURSE.items()}

    written(tmp_path / "courses.csv", {**course(1), "module_presentation_length": [268]})
    written(
        tmp_path / "studentInfo.csv",
        {
            **course(len(rows)),
            "id_student": list(STUDENTS),
            "region": ["Wales", "London"] * 2 + [None],
            "final_result": [result for _, (_, _, result, _) in rows],
        },
    )
    written(
        tmp_path / "studentRegistration.csv",
        {
            **course(len(rows)),
            "id_student": list(STUDENTS),
            "date_registration": [came for _, (came, _, _, _) in rows],
            "date_unregistration": [left for _, (_, left, _, _) in rows],
        },
    )
    written(
        tmp_path / "assessments.csv",
        {
            **course(len(DUE)),
            "id_assessment": list(DUE),
            "assessment_type": ["TMA", "TMA", "Exam"],
            "date": list(DUE.values()),
            "weight": [10.0, 20.0, 100.0],
        },
    )
    handed = [
        (assessment, student, *what)
        for student, (_, _, _, work) in rows
        for assessment, what in work.items()
    ]
    written(
        tmp_path / "studentAssessment.csv",
        {
            name: [row[i] for row in handed]
            for i, name in enumerate(("id_assessment", "id_student", "date_submitted", "score"))
        },
    )
    return tmp_path


def known(folder: Path, day: int) -> dict[str, dict[str, Any]]:
    """Rows by student, as they are known on a day."""
    (unit,) = formats.units(find(str(folder)))
    rows = together(formats.read(unit, Columns(day=day))).rows
    return {row["group"]: row for row in rows.to_dicts()}


def test_who_had_not_come_or_had_left_is_no_row(folder: Path) -> None:
    assert set(known(folder, 0)) == {"1", "2", "3", "5"}
    assert set(known(folder, 15)) == {"1", "2", "5"}, "who leaves on the day has left"
    assert set(known(folder, 40)) == {"1", "2", "4", "5"}


def test_a_score_is_known_when_its_work_was_due_and_handed_in(folder: Path) -> None:
    early, middle, late = (known(folder, day) for day in (0, 24, 60))
    assert early["1"]["x:score_mean"] is None
    assert float(middle["1"]["x:score_mean"]) == 80
    assert middle["2"]["x:score_mean"] is None, "handed in after the day"
    assert float(late["2"]["x:score_mean"]) == 40
    assert float(late["1"]["x:score_mean"]) == 70
    assert float(late["1"]["x:score_last"]) == 60
    assert (late["1"]["x:assessments_done"], late["2"]["x:assessments_done"]) == ("2", "1")
    assert known(folder, 300)["1"]["x:assessments_due"] == "2", "the exam's day is not known"


def test_what_is_only_known_afterwards_is_no_column_and_is_named(folder: Path) -> None:
    (unit,) = formats.units(find(str(folder)))
    raw = together(formats.read(unit, Columns(day=24)))
    assert not {"x:final_result", "x:date_unregistration"} & set(raw.rows.columns)
    told = " ".join(raw.notes)
    assert "final_result, date_unregistration, and the scores of 2 of 3 assessments" in told
    assert "as known on day 24" in told


def test_the_label_is_whether_the_course_was_passed(folder: Path) -> None:
    rows = known(folder, 40)
    told = {student: row["x:passed"] for student, row in rows.items()}
    assert told == {"1": "yes", "2": "no", "4": "yes", "5": "no"}


def test_the_day_changes_no_row_of_what_was_known_before(folder: Path) -> None:
    """Whatever happens after the day leaves its table as it is."""
    before = known(folder, 24)
    path = folder / "studentAssessment.csv"
    table = pl.read_csv(path)
    late = pl.col("date_submitted") > 24
    table.with_columns(score=pl.when(late).then(0).otherwise(pl.col("score"))).write_csv(path)
    path = folder / "studentRegistration.csv"
    table = pl.read_csv(path)
    table.with_columns(date_unregistration=pl.col("date_unregistration").fill_null(200)).write_csv(
        path
    )
    assert known(folder, 24) == before


def test_a_folder_that_lacks_a_file_is_no_such_data_set(folder: Path) -> None:
    (folder / "assessments.csv").unlink()
    assert not oulad.recognised(find(str(folder)))
    assert len(formats.units(find(str(folder)))) == 4


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "studentAssessment.csv").write_text("")
    with pytest.raises(ContractError, match=r"studentAssessment\.csv is no table"):
        known(folder, 0)


@real
def test_the_real_files_become_the_rows_they_hold() -> None:
    (unit,) = formats.units(find(str(REAL)))
    raw = together(formats.read(unit, Columns(day=0)))
    left = 32_593 - len(raw.rows)
    assert f"{left} students who had left" in raw.notes[0]
    assert raw.rows["x:score_mean"].null_count() > 0.9 * len(raw.rows)
    later = together(formats.read(unit, Columns(day=60)))
    assert len(later.rows) < len(raw.rows)
    assert later.rows["x:score_mean"].null_count() < 0.3 * len(later.rows)
