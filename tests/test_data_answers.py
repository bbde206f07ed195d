"""What is one answer, when it was given and how right it was, in whatever words a log says so."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ray_jobs.errors import ContractError, UsageError
from ray_jobs.families.knowledge.table import Columns
from tests.data_parts import FIELDS, KEY, TIMED, UNTIMED, cleaned, csv, delivered, quarantine, short


def test_without_times_the_order_of_the_file_is_the_time(tmp_path: Path) -> None:
    rows = [("a", "i2", "s", "1"), ("b", "i9", "s", "0"), ("a", "i1", "s", "0")]
    table = cleaned(tmp_path / "one", {"log.csv": csv(rows, UNTIMED)})
    assert not table.timed
    a, b = KEY.pseudonym("a"), KEY.pseudonym("b")
    answers = {(a, "i2", 0), (a, "i1", 2), (b, "i9", 1)}
    assert set(short(table, "learner", "item", "position")) == answers
    assert [item for who, item in short(table, "learner", "item") if who == a] == ["i2", "i1"]
    turned = delivered(tmp_path / "two", {"log.csv": csv(rows[::-1], UNTIMED)})
    assert turned.digest != table.digest


@pytest.mark.parametrize(
    ("tries", "answers", "repeats"),
    [
        ("s1 s2", ["s1;s2"], 0),
        ("s2 s1 s3", ["s1;s2;s3"], 0),
        ("s1 s1", ["s1", "s1"], 0),  # nothing tells a repeat from a second try
        ("s1 s2 s2 s1", ["s1;s2", "s1;s2"], 0),
        ("s1 s2 s1 s2", ["s1;s2"], 0),
        (" ", ["", ""], 0),
    ],
)
def test_without_times_rows_that_follow_under_other_skills_are_one_answer(
    tries: str, answers: list[str], repeats: int, tmp_path: Path
) -> None:
    rows = [("a", "i", skill, "1") for skill in tries.split(" ")]
    between = [("b", "i", "s9", "1")] * len(rows)  # others answer meanwhile
    mixed = [row for pair in zip(rows, between, strict=True) for row in pair]
    table = cleaned(tmp_path, {"log.csv": csv(mixed, UNTIMED)})
    a = KEY.pseudonym("a")
    found = [
        ";".join(s)
        for who, s in pl.read_parquet(table.table).select("learner", "skills").rows()
        if who == a
    ]
    assert found == answers
    assert (table.merged, table.repeats) == (len(rows) - len(answers), repeats)


def test_without_times_another_outcome_or_item_is_another_answer(tmp_path: Path) -> None:
    rows = [("a", "i", "s1", "1"), ("a", "i", "s2", "0"), ("a", "j", "s1", "0")]
    table = cleaned(tmp_path, {"log.csv": csv(rows, UNTIMED)})
    assert (table.kept, table.merged, table.quarantined) == (3, 0, {})


def test_with_times_one_answer_may_come_in_rows_far_apart(tmp_path: Path) -> None:
    rows = [("a", "i", "s1", "1", "5"), *TIMED, ("a", "i", "s3;s2", "1", "5.0")]
    table = cleaned(tmp_path, {"log.csv": csv(rows)})
    assert (table.kept, table.merged) == (3, 1)
    assert ["s1", "s2", "s3"] in [skills for (skills,) in short(table, "skills")]


def test_answers_that_contradict_each_other_are_both_set_apart(tmp_path: Path) -> None:
    rows = [*TIMED, ("a", "i", "s", "1", "5"), ("a", "i", "s", "0", "5"), ("a", "i", "s", "0", "6")]
    table = cleaned(tmp_path, {"log.csv": csv(rows)})
    assert table.quarantined == {"conflict": 2}
    assert [line for _, line, _, _ in quarantine(table)] == [4, 5]
    assert table.kept == 3


@pytest.mark.parametrize("moment", ["0", "1970-01-01T00:00:00", ""])
def test_one_moment_for_all_rows_is_no_time(moment: str, tmp_path: Path) -> None:
    rows = [("a", "i", "s", "1", moment)] * 30
    assert not delivered(tmp_path / "one", {"log.csv": csv(rows)}).timed
    slip = [*rows, ("a", "i", "s", "1", "soon")] if moment else rows
    table = cleaned(tmp_path / "two", {"log.csv": csv(slip)})
    assert (table.timed, table.kept, table.repeats) == (False, len(slip), 0)


def test_answers_at_one_moment_are_ordered_by_item_and_not_by_outcome(tmp_path: Path) -> None:
    rows = [*TIMED, ("a", "i2", "", "0", "5"), ("a", "i1", "", "1", "5"), ("a", "i3", "", "1", "5")]
    table = cleaned(tmp_path, {"log.csv": csv(rows)})
    a = KEY.pseudonym("a")
    assert [i for who, i in short(table, "learner", "item") if who == a] == ["i1", "i2", "i3"]


OUTCOMES = {
    "1": 1.0, "0": 0.0, "1.0": 1.0, " 1 ": 1.0, "0.25": 0.25, "TRUE": 1.0, "False": 0.0,
    "correct": 1.0, "wrong": 0.0, "INCORRECT": 0.0, "Yes": 1.0, "n": 0.0, "t": 1.0, "Fail": 0.0,
    "75%": 0.75, ".5": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("text", OUTCOMES)
def test_outcomes_are_read_as_people_write_them(text: str, tmp_path: Path) -> None:
    table = cleaned(tmp_path, {"log.csv": csv([*TIMED, ("a", "i", "s", text, "5")])})
    assert (OUTCOMES[text], 5.0) in short(table, "correct", "time")


@pytest.mark.parametrize(
    ("text", "values", "credit"),
    [
        ("richtig", "richtig=1,falsch=0", 1.0),
        ("halb", "richtig=1, halb = 0.5", 0.5),
        ("2", "1=0,2=1", 1.0),
        ("1", "1=0,2=1", 0.0),
        ("a=b", "a=b=1", 1.0),
        ("0.25", "richtig=1", 0.25),
    ],
)
def test_outcomes_of_ones_own_are_what_they_are_said_to_be(
    text: str, values: str, credit: float, tmp_path: Path
) -> None:
    columns = Columns(values=values)
    table = cleaned(tmp_path, {"log.csv": csv([*TIMED, ("a", "i", "s", text, "5")])}, columns)
    assert (credit, 5.0) in short(table, "correct", "time")


@pytest.mark.parametrize("values", ["richtig", "richtig=", "=1", "richtig=2", "a=1,b=nan", "a=-1"])
def test_what_a_word_is_worth_is_said_between_nothing_and_one(values: str) -> None:
    with pytest.raises(UsageError, match=r"columns\.values=.*richtig=1,falsch=0"):
        Columns(values=values)


def test_a_decimal_comma_is_one(tmp_path: Path) -> None:
    rows = [["a", "i", "s", "0,5", "5"], ["b", "i", "s", "1,0", "6"]]
    log = "\n".join(";".join(row) for row in [FIELDS, *rows])
    table = cleaned(tmp_path, {"log.csv": log.encode()})
    assert sorted(short(table, "correct")) == [(0.5,), (1.0,)]


def test_a_first_row_that_is_no_header_is_not_told_to_anybody(tmp_path: Path) -> None:
    for rows in ([("ann@school.org", "i", "s", "1", "5")] * 3, [("17", "i", "i", "1", "5")] * 3):
        with pytest.raises(ContractError, match="the first line must name the columns") as caught:
            cleaned(tmp_path, {"log.csv": csv(rows[1:], ",".join(rows[0]))})
        # Its place is told, which may have any number in it.
        assert rows[0][0] not in str(caught.value).rpartition("log.csv")[2]


MOMENT_S = 1_700_000_000.0
TIMES = {
    "1700000000": MOMENT_S,
    "1.7e9": MOMENT_S,
    "1700000000.25": MOMENT_S + 0.25,
    "2023-11-14T22:13:20Z": MOMENT_S,
    "2023-11-14T22:13:20": MOMENT_S,
    "2023-11-14 22:13:20": MOMENT_S,
    "2023-11-14 22:13:20.5": MOMENT_S + 0.5,
    "2023-11-15T06:13:20+08:00": MOMENT_S,
    "2023-11-15T06:13:20.250+0800": MOMENT_S + 0.25,
    "2023-11-14T22:13": MOMENT_S - 20,
    "2023-11-14": MOMENT_S - 80_000,
}


@pytest.mark.parametrize("first", TIMES)
def test_times_are_read_in_any_mixture(first: str, tmp_path: Path) -> None:
    order = [first, *(text for text in TIMES if text != first)]
    rows = [("a", f"i{n}", "s", "1", text) for n, text in enumerate(order)]
    table = cleaned(tmp_path, {"log.csv": csv(rows)})
    assert table.quarantined == {}
    found = dict(pl.read_parquet(table.table).select("item", "time").rows())
    assert found == {f"i{n}": TIMES[text] for n, text in enumerate(order)}


@pytest.mark.parametrize("text", ["1700000000000", "-1", "soon", "2023-13-45", "nan", "14/11/2023"])
def test_a_time_that_cannot_be_is_set_apart(text: str, tmp_path: Path) -> None:
    table = cleaned(tmp_path, {"log.csv": csv([*TIMED, ("a", "i", "s", "1", text)])})
    assert table.quarantined == {"invalid_time": 1}


@pytest.mark.parametrize(("text", "separator"), [("b| a ||b", "|"), ("b;a", ";"), ("a~b~", "~")])
def test_skills_are_a_set_whatever_their_order(text: str, separator: str, tmp_path: Path) -> None:
    columns = Columns(skill_separator=separator)
    table = cleaned(tmp_path, {"log.csv": csv([("u", "i", text, "1")], UNTIMED)}, columns)
    assert short(table, "skills") == [(["a", "b"],)]


def test_names_that_are_too_long_are_set_apart_each_for_what_it_is(tmp_path: Path) -> None:
    long = "x" * 513
    rows = [*TIMED, ("a", long, "s", "1", "5"), ("a", "i", f"s;{long}", "1", "6")]
    assert cleaned(tmp_path, {"log.csv": csv(rows)}).quarantined == {
        "long_item": 1,
        "long_skill": 1,
    }
