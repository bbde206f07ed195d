"""What the readers of public line forms promise: every answer in its place, every defect kept."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data.raw import Raw, together
from ray_jobs.data.sources import find
from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge import formats, rules
from ray_jobs.families.knowledge.table import Columns

Answer = tuple[str, str, str]  # item, skill, correct
FORMS = ("count", "named", "items")
Row = tuple[str, str, str, str, int]  # learner, item, skill, correct, line


def read(data: str | bytes, name: str = "log.csv", **columns: str) -> Raw:
    """A file of that name and content, read as a log of answers."""
    with TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(data.encode() if isinstance(data, str) else data)
        (source,) = find(f"{folder}/{name}")
        return together(formats.read([source], Columns(**columns)))


def rows(of: Raw) -> list[Row]:
    return of.rows.select("learner", "item", "skills", "correct", "line").rows()


def lines_of(form: str, number: int, answers: Sequence[Answer]) -> list[str]:
    """One learner as DKT and DKVMN (count), and as AKT with and without items have it."""
    items, skills, correct = (",".join(column) for column in zip(*answers, strict=True))
    head = str(len(answers)) if form == "count" else f"{number},{900 + number}"
    return [head, *([items] if form == "items" else []), skills, correct]


def rows_of(form: str, number: int, answers: Sequence[Answer], first: int) -> list[Row]:
    """What is to be read of a learner whose lines begin at `first`."""
    learner = f"log:{first}" if form == "count" else str(900 + number)
    last = first + len(lines_of(form, number, answers)) - 1
    return [(learner, i if form == "items" else s, s, c, last) for i, s, c in answers]


def spoilt(defect: str, lines: list[str]) -> list[str]:
    """The lines of a learner of three answers or more, with one thing wrong."""
    head, *inner, last = lines
    return {
        "an outcome too few": [head, *inner, last.rpartition(",")[0]],
        "a skill too many": [head, *inner[:-1], f"{inner[-1]},7", last],
        "no outcomes": [head, *inner, ""],
        "a longer head": [f"{head},1,2", *inner, last],
        "a wrong count": [str(len(last.split(",")) + 1), *inner, last],
        "a head that is no number": ["x", *inner, last],
    }[defect]


DEFECTS = (
    "an outcome too few",
    "a skill too many",
    "no outcomes",
    "a longer head",
    "a wrong count",
    "a head that is no number",
)
answer = st.tuples(*(st.integers(0, 99).map(str) for _ in range(2)), st.sampled_from("01"))
# Not two answers: with two each, the lines of a form with items would fit that without as well.
some_answers = st.sampled_from([1, 3, 4, 5]).flatmap(
    lambda n: st.lists(answer, min_size=n, max_size=n)
)
learners = st.lists(some_answers, min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMS), learners, st.randoms(use_true_random=False))
def test_a_line_form_is_read_to_the_answer_however_its_file_was_written(
    form: str, school: list[list[Answer]], dice: random.Random
) -> None:
    lines: list[str] = []
    expected: list[Row] = []
    for number, answers in enumerate(school):
        expected += rows_of(form, number, answers, len(lines) + 1)
        lines += lines_of(form, number, answers)
    comma, ending = dice.choice(["", ","]), dice.choice(["\n", "\r\n"])
    text = ending.join([lines[0], *(line + comma for line in lines[1:])])
    data = (
        dice.choice([b"", b"\xef\xbb\xbf"]) + text.encode() + dice.choice([b"", b"\n", b"\n \n\n"])
    )
    name = dice.choice(["log.csv", "log.txt", "log.tsv", "log.csv.gz"])
    found = read(gzip.compress(data) if name.endswith("gz") else data, name)
    assert rows(found) == expected
    assert set(found.rows["file"]) == {name}
    assert found.malformed.is_empty()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMS), learners, st.sampled_from(DEFECTS), st.data())
def test_a_defect_costs_its_own_learner_who_is_kept_word_for_word(
    form: str, school: list[list[Answer]], defect: str, data: st.DataObject
) -> None:
    three = [("1", "2", "1")] * 3
    school = [three, *school, three]
    at = data.draw(st.integers(1, len(school) - 1))
    school.insert(at, three)
    lines: list[str] = []
    expected: list[Row] = []
    for number, answers in enumerate(school):
        mine = lines_of(form, number, answers)
        if number == at:
            mine = spoilt(defect, mine)
            bad = ("log.csv", len(lines) + 1, "malformed_line", "\n".join(mine))
        else:
            expected += rows_of(form, number, answers, len(lines) + 1)
        lines += mine
    found = read("\n".join(lines))
    assert rows(found) == expected
    assert found.malformed.rows() == [bad]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("left", [1, 2])
def test_a_file_that_was_cut_off_keeps_what_is_left_of_the_last_learner(
    form: str, left: int
) -> None:
    whole = [line for n in range(4) for line in lines_of(form, n, [("1", "2", "1")] * 3)]
    last = lines_of(form, 4, [("1", "2", "0")] * 3)[:left]
    found = read("\n".join([*whole, *last]))
    assert len(found.rows) == 12
    assert found.malformed.rows() == [
        ("log.csv", len(whole) + 1, "malformed_line", "\n".join(last))
    ]


def test_a_gap_inside_a_line_costs_its_own_answer_alone() -> None:
    found = read("1\n10\n1\n4\n11,12,,14\n0,1,1,\n4\n15,,17,18\n0,1,x,1\n")
    # A line may end in a comma, so what lacks its last outcome lacks an answer.
    bad = "4\n11,12,,14\n0,1,1,"
    assert found.malformed.rows() == [("log.csv", 4, "malformed_line", bad)]
    table = found.rows.with_row_index("position").with_columns(bucket=0, split=pl.lit(None))
    cleaned = rules.clean(table, False, Columns())
    assert cleaned.table["item"].to_list() == ["10", "15", "18"]
    reasons = dict(cleaned.bad.select("reason", "position").rows())
    assert reasons == {"missing_item": 2, "invalid_correct": 3}


@pytest.mark.parametrize(
    "text",
    [
        "learner,item,correct\n1,2,1\n3,4,0\n",
        "user_id\tcorrect\titem\n1\t1\t5\n2\t0\t5\n",
        "1,2,3\n4,5,6\n7,8,9\n",  # numbers, but three of them cannot head a learner
        "2\n11,12\n1,0,1\n",
        "2\n11,12\n",
        "2\na,b\n1,0\n",
    ],
)
def test_what_is_no_line_form_is_read_as_a_table(text: str) -> None:
    if text[0].isdigit():
        with pytest.raises(ContractError, match="no column for learner, correct"):
            read(text)
    else:
        assert len(read(text).rows) == 2
    with pytest.raises(ContractError, match=r"is no Parquet table|no line is a JSON object"):
        read("2\n11,12\n1,0\n", "log.jsonl")


def test_lines_of_which_no_group_holds_answers_are_refused_by_name() -> None:
    with pytest.raises(ContractError, match=r"log\.csv: no group of 3 lines holds answers"):
        read("5\n11,12\n1,0\n6\n11,12\n1,0\n")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("learner,user_id,item,correct", "first"),
        ("user_id,learner,item,correct", "second"),
        ("Learner,LEARNER,item,correct", "first"),
        ("item,correct,USER,student_id", "fourth"),
    ],
)
def test_of_several_usual_names_the_most_usual_is_taken_and_of_equals_the_first(
    header: str, found: str
) -> None:
    values = dict(zip(header.split(","), ("first", "second", "third", "fourth"), strict=True))
    values |= {"item": "i", "correct": "1"}
    assert read(f"{header}\n{','.join(values.values())}\n").rows["learner"].to_list() == [found]


@pytest.mark.parametrize(
    ("header", "lacking"),
    [
        ("pupil,task,right", "learner, correct, item"),
        ("learner,task,right", "correct, item"),
        ("learner,task,correct", "item"),
        ("item,skill,time", "learner, correct"),
    ],
)
def test_all_that_is_missing_is_told_at_once_with_the_names_it_usually_has(
    header: str, lacking: str
) -> None:
    with pytest.raises(ContractError) as caught:
        read(f"{header}\na,b,1\n")
    first = lacking.split(",", maxsplit=1)[0]
    assert f"no column for {lacking} among {header.replace(',', ', ')}; " in str(caught.value)
    assert f"--set columns.{first}=NAME (usual: {', '.join(formats.NAMES[first])})" in str(
        caught.value
    )


def test_a_column_that_is_asked_for_is_meant_to_the_letter() -> None:
    log = "learner,item,Points,points,line\na,b,1,0,0.5\n"
    for name, credit in (("Points", "1"), ("points", "0")):
        assert read(log, correct=name).rows["correct"].to_list() == [credit]
    for name in ("POINTS", "line"):
        with pytest.raises(ContractError) as caught:
            read(log, correct=name)
        assert (
            f"no column {name!r} (columns.correct); there are learner, item, Points, points, "
            in str(caught.value)
        )
