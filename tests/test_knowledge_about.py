"""What else a log says of answers: how long they took, and of whom figures are told apart."""

from __future__ import annotations

import polars as pl
import pytest

from ray_jobs.data.clean import Cleaned
from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge import rules
from ray_jobs.families.knowledge.slices import slices
from ray_jobs.families.knowledge.table import CLEAN, Columns
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from tests.test_knowledge_formats import read

HEAD = "user_id,item_id,correct,gender,school"
LOG = f"{HEAD}\nann,i,1,f,north\nann,j,0,f,\nbob,i,1,,\n"


def cleaned(log: str, **columns: str) -> Cleaned:
    raw = (
        read(log, **columns)
        .rows.with_row_index("position")
        .with_columns(
            bucket=pl.col("learner").rank("dense").cast(pl.UInt64), split=pl.lit(None, pl.String)
        )
    )
    return rules.clean(raw, False, Columns(**columns))


def test_columns_that_are_named_stand_beside_each_answer_and_others_do_not() -> None:
    told = cleaned(LOG, about="gender, school").table["about"].to_list()
    assert told == [["gender=f", "school=north"], ["gender=f"], None]
    assert cleaned(LOG, about="school").table["about"].to_list() == [["school=north"], None, None]
    assert cleaned(LOG).table["about"].to_list() == [None] * 3
    assert "about" not in read(LOG).rows.columns, "nor do they in the snapshot"


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(
        ContractError, match=r"no column 'sex' \(columns.about\); there are user_id"
    ):
        read(LOG, about="sex")
    with pytest.raises(ContractError, match=r"names 'user_id', the learners themselves"):
        read(LOG, about="gender,user_id")
    statement = (
        b'{"actor": {"mbox": "mailto:a@b.c"}, "verb": {"id": "a:b"}, "object": {"id": "a:i"}}'
    )
    with pytest.raises(ContractError, match=r"xAPI statements, and columns\.about names"):
        read(statement, name="log.jsonl", about="gender")


@pytest.mark.parametrize(
    ("name", "text", "seconds"),
    [
        ("response_time", "12.5", 12.5),
        ("ms_first_response", "12500", 12.5),
        ("response_time_ms", "0", 0.0),
        ("response_time", "-1", None),
        ("response_time", "nan", None),
        ("response_time", "soon", None),
        ("response_time", "90000", None),
        ("response_time", "", None),
    ],
)
def test_response_times_are_seconds_or_unknown_and_the_answer_counts_anyhow(
    name: str, text: str, seconds: float | None
) -> None:
    found = cleaned(f"user_id,item_id,correct,{name}\nann,i,1,{text}\n")
    assert found.table["response_s"].to_list() == [seconds]
    assert found.bad.is_empty()
    assert found.notes == ((rules.UNKNOWN,) if text and seconds is None else ())


def test_a_column_of_another_name_is_in_milliseconds_where_its_name_says_so() -> None:
    log = "user_id,item_id,correct,took_ms,forms\nann,i,1,1500,7\n"
    assert cleaned(log, response_time="took_ms").table["response_s"].to_list() == [1.5]
    assert cleaned(log, response_time="forms").table["response_s"].to_list() == [7.0]


def table(**columns: list[object]) -> pl.DataFrame:
    """A clean table in which only these columns say anything."""
    size = len(next(iter(columns.values())))
    usual = {"learner": "l", "item": "i", "skills": [], "correct": 1.0, "scored": True}
    rows = [usual | {name: values[i] for name, values in columns.items()} for i in range(size)]
    return pl.DataFrame(rows, schema=CLEAN)


def parts(**columns: list[object]) -> pl.DataFrame:
    return slices(table(**columns), Vocabulary((), ()))


def test_answers_are_told_apart_by_how_long_they_took() -> None:
    times: list[object] = [0.0, 2.9, 3.0, 10.0, 29.0, 30.0, 120.0, None]
    assert parts(response_s=times)["response_time"].to_list() == [
        "under 3 s", "under 3 s", "3 to 10 s", "10 to 30 s", "10 to 30 s", "30 to 120 s",
        "over 120 s", None,
    ]  # fmt: skip
    assert "response_time" not in parts(response_s=[None, None]).columns


def test_answers_are_told_apart_by_the_commonest_values_of_each_column() -> None:
    told: list[object] = [["gender=f", "town=a=b"], ["gender=m"], None, ["town=c"]]
    found = parts(about=told)
    assert found["gender"].to_list() == ["f", "m", None, None]
    assert found["town"].to_list() == ["a=b", None, None, "c"]
    many: list[object] = [[f"school={i % 12}"] for i in range(30)]
    kept = parts(about=many)["school"]
    # 12 schools; those met three times, and of the others the first by name.
    assert set(kept.drop_nulls()) == {"0", "1", "2", "3", "4", "5", "10", "11", "6", "7"}
    assert kept.null_count() == 4


def test_what_is_not_scored_makes_no_value_common() -> None:
    told: list[object] = [[f"school={i}"] for i in range(12)]
    found = parts(about=told, scored=[i >= 10 for i in range(12)])
    assert {"10", "11"} == set(found["school"].drop_nulls())


def test_a_column_of_the_log_takes_the_place_of_none_of_ours() -> None:
    found = parts(about=[["skill=x", "target=y", "group=z"]])
    assert found["skill_"].to_list() == ["x"]
    assert {"target_", "group_"} <= set(found.columns)
    assert "target" not in found.columns
