"""What else a log says of answers: how long they took, and of whom figures are told apart."""

from __future__ import annotations

import polars as pl
import pytest

from ray_jobs.data.clean import Cleaned
from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge import rules
from ray_jobs.families.knowledge.slices import FEWEST, slices
from ray_jobs.families.knowledge.table import CLEAN, Columns
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from tests.test_knowledge_formats import read

HEAD = "user_id,item_id,correct,gender,school"
LOG = f"{HEAD}\nann,i,1,f,north\nann,j,0,f,\nbob,i,1,,\n"


def cleaned(log: str, **columns: str) -> Cleaned:
    return ruled(read(log, **columns).rows, **columns)


def ruled(rows: pl.DataFrame, timed: bool = False, /, **columns: str) -> Cleaned:
    raw = rows.with_row_index("position").with_columns(
        bucket=pl.col("learner").rank("dense").cast(pl.UInt64), split=pl.lit(None, pl.String)
    )
    return rules.clean(raw, timed, Columns(**columns))


def test_columns_that_are_named_stand_beside_each_answer_and_others_do_not() -> None:
    told = cleaned(LOG, about="gender, school").table["about"].to_list()
    assert told == [["gender=f", "school=north"], ["gender=f"], None]
    assert cleaned(LOG, about="school").table["about"].to_list() == [["school=north"], None, None]
    assert cleaned(LOG).table["about"].to_list() == [None] * 3
    assert "about" not in read(LOG).rows.columns, "nor do they in the snapshot"


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(ContractError, match=r"no column 'sex' \(columns.about\)") as refused:
        read(LOG, about="sex")
    assert str(refused.value).endswith(
        "there are user_id, item_id, correct, gender, school. Name some of them, or none"
    )
    with pytest.raises(ContractError, match=r"names 'user_id', the learners themselves"):
        read(LOG, about="gender,user_id")
    statement = (
        b'{"actor": {"mbox": "mailto:a@b.c"}, "verb": {"id": "a:b"}, "object": {"id": "a:i"}}'
    )
    with pytest.raises(ContractError, match=r"xAPI statements, .* 'gender' \(columns.about\)"):
        read(statement, name="log.jsonl", about="gender")


@pytest.mark.parametrize(
    ("name", "text", "seconds"),
    [
        ("response_time", "12.5", 12.5),
        ("ms_first_response", "12500", 12.5),
        ("response_time_ms", "0", 0.0),
        ("took (ms)", "1500", 1.5),
        ("elapsed-ms", "1500", 1.5),
        ("responseTimeMs", "1500", 1.5),
        ("forms", "7", 7.0),
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
    found = cleaned(f"user_id,item_id,correct,{name}\nann,i,1,{text}\n", response_time=name)
    assert found.table["response_s"].to_list() == [seconds]
    assert found.bad.is_empty()
    assert found.notes == ((rules.UNKNOWN,) if text and seconds is None else ())


def test_how_long_answers_took_is_read_only_where_that_is_asked_for() -> None:
    """Or files that have such a column and files that have none would not go together."""
    log = "user_id,item_id,correct,response_time\nann,i,1,7\n"
    assert "response_time" not in read(log).rows.columns
    assert cleaned(log).table["response_s"].to_list() == [None]


def test_lines_of_answers_have_no_columns_to_name() -> None:
    for name in ("about", "response_time"):
        with pytest.raises(ContractError, match=rf"lines of answers, .* 'x' \(columns.{name}\)"):
            read("2\n1,2\n0,1\n", **{name: "x"})


def test_what_was_mended_into_something_else_breaks_one_row_alone() -> None:
    raw = read(LOG, about="gender").rows
    for text in ("f", "[1]", "{"):
        mended = raw.with_columns(about=pl.Series([text, *raw["about"][1:]]))
        found = ruled(mended, about="gender")
        assert found.bad["reason"].to_list() == ["invalid_about"]
        assert found.table["about"].to_list() == [["gender=f"], None]


def test_of_two_deliveries_of_an_answer_the_order_leaves_no_trace() -> None:
    head = "user_id,item_id,correct,timestamp,skill_id,took"
    rows = ["ann,i,1,50,a,9", "ann,i,1,50,b,7", "ann,i,1,50,a,8"]
    one, other = (
        ruled(read("\n".join([head, *some]), response_time="took").rows, True, response_time="took")
        for some in (rows, rows[::-1])
    )
    assert one.table["response_s"].to_list() == other.table["response_s"].to_list() == [7.0]


def table(**columns: list[object]) -> pl.DataFrame:
    """A clean table in which only these columns say anything."""
    size = len(next(iter(columns.values())))
    usual = {"item": "i", "skills": [], "correct": 1.0, "scored": True}
    rows = [
        {"learner": f"l{i}", **usual, **{name: values[i] for name, values in columns.items()}}
        for i in range(size)
    ]
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
    told: list[object] = [["gender=f", "town=a=b"], ["gender=m"], None, ["town=c"]] * FEWEST
    found = parts(about=told)
    assert found["gender"].to_list() == ["f", "m", None, None] * FEWEST
    assert found["town"].to_list() == ["a=b", None, None, "c"] * FEWEST
    many: list[object] = [[f"school={i % 12}"] for i in range(12 * FEWEST + 6)]
    kept = parts(about=many)["school"]
    # Those met once more than the others, and of the others the first by name.
    assert set(kept.drop_nulls()) == {"0", "1", "2", "3", "4", "5", "10", "11", "6", "7"}
    assert kept.null_count() == 4 * FEWEST // 2


def test_what_few_learners_share_is_told_of_none_of_them() -> None:
    told: list[object] = [[f"school={size}"] for size in ("small", "large") for _ in range(FEWEST)]
    who: list[object] = [f"l{i % (FEWEST - 1)}" for i in range(FEWEST)] + [*range(FEWEST)]
    found = parts(about=told, learner=[str(one) for one in who])
    assert found["school"].to_list() == [None] * FEWEST + ["large"] * FEWEST


def test_what_is_not_scored_makes_no_value_common() -> None:
    told: list[object] = [[f"school={i % 2}"] for i in range(4 * FEWEST)]
    found = parts(about=told, scored=[i % 2 == 0 or i < FEWEST for i in range(4 * FEWEST)])
    assert set(found["school"].drop_nulls()) == {"0"}


def test_a_column_of_the_log_takes_the_place_of_none_of_ours() -> None:
    names = ("skill", "target", "group", "row", "len")
    found = parts(about=[[f"{name}=x" for name in names]] * FEWEST)
    assert found["skill_"].to_list() == ["x"] * FEWEST
    assert {f"{name}_" for name in names} <= set(found.columns)
    assert "target" not in found.columns
