"""What reading files promises: every row with its place, every bad line with its reason."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data import readers
from ray_jobs.data.blocks import BLOCK_BYTES
from ray_jobs.data.raw import Raw, together
from ray_jobs.data.sources import Source, find
from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge import formats
from ray_jobs.families.knowledge.table import Columns

HEADER = "user_id,item_id,skill_id,correct,timestamp"
ROWS = [
    ("u1", "i1", "s1;s2", "1", "1700000000"),
    ("u1", "i2", "", "0", "1700000010"),
    ("u2", "i1", "s1;s2", "0", "1700000020"),
]
LOG = "\n".join([HEADER, *(",".join(row) for row in ROWS), ""])


def source(path: Path, data: bytes) -> Source:
    path.write_bytes(data)
    return find(str(path))[0]


def raw(data: str | bytes, name: str = "log.csv", block_bytes: int = BLOCK_BYTES) -> Raw:
    """A file of that name and content, read as it is."""
    content = data.encode() if isinstance(data, str) else data
    with TemporaryDirectory() as folder:
        file = source(Path(folder, name), content)
        return together(readers.batches(file, block_bytes=block_bytes))


def log(path: Path, data: str | bytes, columns: Columns | None = None) -> Raw:
    """A file read as a log of answers."""
    content = data.encode() if isinstance(data, str) else data
    return together(formats.read([source(path, content)], columns or Columns()))


def answers(of: Raw) -> list[tuple[Any, ...]]:
    return of.rows.select(formats.RAW).rows()


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def records() -> list[dict[str, str]]:
    return [dict(zip(HEADER.split(","), row, strict=True)) for row in ROWS]


FORMS = {
    "log.csv": LOG.encode(),
    "log.tsv": LOG.replace(",", "\t").encode(),
    "tabs.csv": LOG.replace(",", "\t").encode(),
    "semicolons.csv": LOG.replace(";", "+").replace(",", ";").replace("+", "|").encode(),
    "windows.csv": LOG.replace("\n", "\r\n").encode(),
    "mac.csv": LOG.replace("\n", "\r").encode(),
    "mark.csv": b"\xef\xbb\xbf" + LOG.encode(),
    "quoted.csv": LOG.replace("i1", '"i1"').replace("user_id", '"user_id"').encode(),
    "open.csv": LOG.rstrip("\n").encode(),
    "log.csv.gz": gzip.compress(LOG.encode()),
    "log.jsonl": b"\n".join(orjson.dumps(r) for r in records()),
    "marked.jsonl": b"\xef\xbb\xbf" + b"\n".join(orjson.dumps(r) for r in records()),
    "log.parquet": parquet(pl.DataFrame(records())),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_log_says_the_same_in_every_form(name: str, tmp_path: Path) -> None:
    read = log(tmp_path / name, FORMS[name])
    expected = [tuple(value or None for value in row) for row in ROWS]
    if name == "semicolons.csv":
        expected = [(u, i, s and s.replace(";", "|"), c, t) for u, i, s, c, t in expected]
    assert answers(read) == expected
    assert read.rows["file"].unique().to_list() == [name]
    first = 1 if name.endswith(("jsonl", "parquet")) else 2
    assert read.rows["line"].to_list() == [first, first + 1, first + 2]
    assert read.malformed.is_empty()


FIELD = st.text(st.sampled_from('ab",; \n\té'), max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8))
def test_quoted_fields_come_back_as_they_were_written(fields: list[tuple[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    lines = []
    writer.writerow(("learner", "item", "skills"))
    for number, (item, skills) in enumerate(fields):
        lines.append(buffer.getvalue().count("\n") + 1)
        writer.writerow((f"u{number}", item, skills))
    read = raw(buffer.getvalue())
    assert read.malformed.is_empty()
    expected = [
        (f"u{n}", item.strip() or None, skills.strip() or None)
        for n, (item, skills) in enumerate(fields)
    ]
    assert read.rows.select("learner", "item", "skills").rows() == expected
    assert read.rows["line"].to_list() == lines


LINES = st.lists(st.text(st.sampled_from('ab",;\t é\r'), max_size=9), min_size=1, max_size=12)


@settings(deadline=None)
@given(LINES, st.integers(1, 40), st.sampled_from(["\n", "\r\n", "\r"]))
def test_where_a_file_is_cut_into_blocks_changes_nothing(
    lines: list[str], block_bytes: int, ending: str
) -> None:
    text = ending.join([HEADER, "u1,i1,s,1,5", *lines, 'u2,"i2",s,0,6'])
    whole, parts = raw(text), raw(text, block_bytes=block_bytes)
    assert parts.rows.rows() == whole.rows.rows()
    assert parts.malformed.rows() == whole.malformed.rows()


@settings(deadline=None)
@given(LINES)
def test_a_quote_elsewhere_changes_no_line(lines: list[str]) -> None:
    plain = [line.replace('"', "").replace("\r", "") for line in lines]
    text = "\n".join([HEADER, "u1,i1,s,1,5", *plain])
    one, other = raw(text), raw(text + '\nu2,"i2",s,0,6')
    assert other.rows.rows()[:-1] == one.rows.rows()
    assert other.malformed.rows() == one.malformed.rows()


@pytest.mark.parametrize("block_bytes", [1, 7, 64])
def test_json_lines_in_blocks_keep_their_numbers(block_bytes: int) -> None:
    lines = [b'{"learner": "a"}', b"", b"{broken", b'{"learner": "b", "late": 1}', b"[1]"]
    read = raw(b"\n".join(lines), "log.jsonl", block_bytes)
    assert read.rows.select("learner", "late", "line").rows() == [("a", None, 1), ("b", "1", 4)]
    assert read.malformed.select("line", "raw").rows() == [(3, "{broken"), (5, "[1]")]


@settings(deadline=None)
@given(st.integers(1, 8), st.data())
def test_a_quote_that_never_closes_costs_its_own_line_alone(
    count: int, data: st.DataObject
) -> None:
    lines = [f"u{i},i{i},s,1,{i}" for i in range(count)]
    at = data.draw(st.integers(0, count - 1))
    broken = f'u{at},"i{at},s,1,{at}'
    read = raw("\n".join([HEADER, *lines[:at], broken, *lines[at + 1 :]]))
    assert read.malformed.rows() == [("log.csv", at + 2, "malformed_line", broken)]
    kept = [i for i in range(count) if i != at]
    assert read.rows["user_id"].to_list() == [f"u{i}" for i in kept]
    assert read.rows["line"].to_list() == [i + 2 for i in kept]


FAULTS = {
    "u3,i1,s1,1": "malformed_line",
    "u3,i1,s1,1,17,web": "malformed_line",
    "u3": "malformed_line",
    'u3,"i1"x,s1,1,17': "malformed_line",
    HEADER: "repeated_header",
    "u3,i\ufffd,s1,1,17": "unreadable_bytes",
}


@pytest.mark.parametrize("quotes", [False, True])
@pytest.mark.parametrize("bad", FAULTS)
def test_a_bad_line_comes_back_with_its_place_reason_and_text(bad: str, quotes: bool) -> None:
    first = LOG.replace("i1", '"i1"') if quotes else LOG
    data = f"{first}\n{bad}\nu4,i4,,1,18\n".encode().replace("\ufffd".encode(), b"\xe9")
    read = raw(data)
    assert read.malformed.rows() == [("log.csv", 6, FAULTS[bad], bad)]
    assert read.rows["user_id"].to_list() == ["u1", "u1", "u2", "u4"]
    assert read.rows["line"].to_list() == [2, 3, 4, 7]


def test_blank_lines_are_no_rows_and_shift_no_line_number() -> None:
    read = raw(f"{HEADER}\n\nu1,i1,s,1,5\n   \n\nu2,i1,s,1,5\n\n")
    assert read.rows["line"].to_list() == [3, 6]
    assert read.malformed.is_empty()


def test_bad_json_lines_come_back_with_their_reasons() -> None:
    lines = [b'{"learner": "a"}', b"", b"{broken", b"[1]", b'{"learner": "\xe9"}', b"null"]
    read = raw(b"\n".join(lines), "log.jsonl")
    assert read.rows["learner"].to_list() == ["a"]
    reasons = [(3, "malformed_line"), (4, "malformed_line"), (5, "unreadable_bytes")]
    assert read.malformed.select("line", "reason").rows() == [*reasons, (6, "malformed_line")]
    assert read.malformed["raw"].to_list() == ["{broken", "[1]", '{"learner": "\ufffd"}', "null"]


def test_a_column_that_comes_late_in_json_lines_is_not_lost() -> None:
    lines = [orjson.dumps({"learner": "a", **({"time": n} if n > 400 else {})}) for n in range(500)]
    times = raw(b"\n".join(lines), "log.jsonl").rows["time"].to_list()
    assert times == [None] * 401 + [str(n) for n in range(401, 500)]


def test_an_empty_place_in_a_list_stands_for_nothing() -> None:
    line = orjson.dumps({"learner": "a", "skills": ["s1", None, "s2"]})
    (text,) = raw(line, "log.jsonl").rows["skills"]
    assert set(text.split(";")) - {""} == {"s1", "s2"}


def test_typed_values_become_the_text_a_csv_would_hold() -> None:
    values = {
        "flag": True,
        "whole": 7.0,
        "part": 0.5,
        "count": 3,
        "tags": ["x", "y"],
        "text": "z",
        "none": None,
    }
    expected = {
        "flag": "1",
        "whole": "7",
        "part": "0.5",
        "count": "3",
        "tags": "x;y",
        "text": "z",
        "none": None,
    }
    frame = pl.DataFrame([values], schema_overrides={"text": pl.Categorical})
    for data, name in ((orjson.dumps(values), "log.jsonl"), (parquet(frame), "log.parquet")):
        assert raw(data, name).rows.select(*expected).to_dicts() == [expected]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Shanghai"])
def test_moments_in_parquet_are_read_as_what_they_are(zone: str | None) -> None:
    moments = pl.Series("time", [datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)])
    naive = moments.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    column = naive if zone is None else moments.dt.convert_time_zone(zone)
    # What names no zone keeps its clock, since only its log tells in which zone it went.
    expected = "2023-11-14T22:13:20.500000" if zone is None else "1700000000.5"
    assert raw(parquet(column.to_frame()), "log.parquet").rows["time"].to_list() == [expected]


def test_lists_are_joined_by_the_separator_that_parts_them_again(tmp_path: Path) -> None:
    line = orjson.dumps({"learner": "a", "skills": ["s;1", "s2"], "correct": 1})
    read = log(tmp_path / "log.jsonl", line, Columns(skill_separator="|"))
    assert read.rows["skills"].to_list() == ["s;1|s2"]


def test_a_logs_own_columns_called_file_and_line_stand_beside_ours() -> None:
    for data, name in (
        (b"learner,line,file\nu,7,x\n", "log.csv"),
        (orjson.dumps({"learner": "u", "line": 7, "file": "x"}), "log.jsonl"),
        (parquet(pl.DataFrame({"learner": ["u"], "line": [7], "file": ["x"]})), "log.parquet"),
    ):
        (row,) = raw(data, name).rows.to_dicts()
        assert (row["line_"], row["file_"], row["file"]) == ("7", "x", name)
        assert row["line"] == (2 if name == "log.csv" else 1)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("log.csv", b"", "is empty; expected a header"),
        ("log.csv", b" \n\n", "is empty; expected a header"),
        ("log.csv", b"learner,item,item\nu,i,j\n", "line 1: a column stands twice"),
        ("log.csv", LOG.encode("utf-16-le"), "expected text"),
        ("log.jsonl", b"[1]\n2\n", "no line is a JSON object"),
        ("log.parquet", b"PAR0", "no Parquet table"),
    ],
)
def test_what_is_no_table_is_refused_by_name(name: str, data: bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        raw(data, name)
    assert name in str(caught.value)


def test_a_cut_off_gz_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="deliver it again"):
        log(tmp_path / "log.csv.gz", gzip.compress(LOG.encode() * 99)[:-20])


def test_other_column_names_are_mapped(tmp_path: Path) -> None:
    text = "Pupil;Task ; Right\np1;t1;1\n"
    columns = Columns(learner="Pupil", item="Task", correct="Right")
    assert answers(log(tmp_path / "log.csv", text, columns)) == [("p1", "t1", None, "1", None)]


def test_usual_names_are_found_in_any_case(tmp_path: Path) -> None:
    text = "STUDENT_ID,Problem_Id,Correct,noise\np1,t1,1,x\n"
    assert answers(log(tmp_path / "log.csv", text)) == [("p1", "t1", None, "1", None)]


def test_a_log_of_skills_alone_takes_the_skill_for_the_item(tmp_path: Path) -> None:
    read = log(tmp_path / "log.csv", "user,skill,correct\nu,algebra,1\n")
    assert answers(read) == [("u", "algebra", "algebra", "1", None)]


def test_a_missing_column_is_named_with_those_there_are_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        log(tmp_path / "log.csv", "Pupil,item,correct\np,i,1\n")
    assert "no column for learner among Pupil, item, correct" in str(caught.value)
    assert "--set columns.learner=NAME" in str(caught.value)


def test_a_mapped_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        log(tmp_path / "log.csv", LOG, Columns(correct="points"))
    assert "no column 'points' (columns.correct)" in str(caught.value)
    assert "there are user_id, item_id, skill_id, correct, timestamp" in str(caught.value)


def test_empty_and_padded_values_are_tidied_before_a_pseudonym_is_made(tmp_path: Path) -> None:
    read = log(tmp_path / "log.csv", "learner,item,correct\n  ,i, 1 \n u ,,\n")
    assert answers(read) == [(None, "i", None, "1", None), ("u", None, None, None, None)]


THREE = "2\n11,12\n1,0\n3,\n11,11,12,\n0,1,1,\n"
FOUR = "0,900\n5,5,6\n11,12,12\n1,1,0\n1,901\n7\n11\n1\n"


def test_three_lines_a_learner_are_read(tmp_path: Path) -> None:
    read = log(tmp_path / "builder_train.csv", THREE)
    assert read.malformed.is_empty()
    one, two = "builder_train:1", "builder_train:4"
    assert read.rows.select("learner", "item", "skills", "correct", "line").rows() == [
        (one, "11", "11", "1", 3),
        (one, "12", "12", "0", 3),
        (two, "11", "11", "0", 6),
        (two, "11", "11", "1", 6),
        (two, "12", "12", "1", 6),
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_four_lines_a_learner_are_read(ending: str, tmp_path: Path) -> None:
    read = log(tmp_path / "log.csv", FOUR.replace("\n", ending))
    assert read.rows.select("learner", "item", "skills", "correct").rows() == [
        ("900", "5", "11", "1"),
        ("900", "5", "12", "1"),
        ("900", "6", "12", "0"),
        ("901", "7", "11", "1"),
    ]


def test_three_lines_with_a_learner_id_have_no_items(tmp_path: Path) -> None:
    read = log(tmp_path / "log.csv", "0,900\n11,12\n1,0\n1,901\n12\n1\n")
    learners = ["900", "900", "901"]
    assert read.rows["learner"].to_list() == learners
    assert read.rows["item"].to_list() == read.rows["skills"].to_list() == ["11", "12", "12"]


def test_a_group_whose_lines_disagree_is_set_apart(tmp_path: Path) -> None:
    read = log(tmp_path / "log.csv", "2\n11,12\n1,0\n3\n11,11\n0,1,1\n1\n4\n1\n")
    assert read.malformed.rows() == [("log.csv", 4, "malformed_line", "3\n11,11\n0,1,1")]
    assert read.rows["item"].to_list() == ["11", "12", "4"]


def test_learners_of_two_files_without_ids_are_not_mixed(tmp_path: Path) -> None:
    train = log(tmp_path / "set_train.csv", THREE).rows["learner"]
    test = log(tmp_path / "set_test.csv", THREE).rows["learner"]
    assert not set(train) & set(test)


@pytest.mark.parametrize("block_bytes", [9, 40, 1 << 20])
def test_which_columns_json_lines_have_is_the_same_wherever_they_are_cut(
    block_bytes: int, tmp_path: Path
) -> None:
    """A late `item`, two names for a time, and objects that hold nothing."""
    lines = [
        {"learner": "a", "skill": "s", "correct": 1, "timestamp": 5},
        {"learner": "a", "skill": "s", "correct": 0, "timestamp": 6, "item": "i"},
        {"learner": "b", "skill": "s", "time": 7, "correct": 1, "when": 8},
    ]
    data = b"{}\n" + b"\n".join(orjson.dumps(line) for line in lines)
    (tmp_path / "log.jsonl").write_bytes(data)
    read = partial(readers.batches, block_bytes=block_bytes)
    (unit,) = find(str(tmp_path / "log.jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "batches", lambda source, **_: read(source))
        found = together(formats.read([unit], Columns(time="when")))
    assert found.rows["item"].to_list() == [None, None, "i", None]
    assert found.rows["time"].to_list() == [None, None, None, "8"]


def test_json_that_is_nested_too_deep_costs_its_own_line() -> None:
    deep = [
        b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"a":' + b'{"b":' * 400 + b"1" + b"}" * 401,
    ]
    read = raw(b"\n".join([b'{"a":"1"}', *deep, b'{"a":"2"}']), "log.jsonl")
    assert read.rows["a"].to_list() == ["1", "2"]
    assert read.malformed.select("line", "reason").rows() == [
        (2, "malformed_line"),
        (3, "malformed_line"),
    ]


@pytest.mark.parametrize("quotes", [False, True])
def test_a_line_of_separators_alone_is_a_row_of_nothing(quotes: bool) -> None:
    read = raw("a\tb\tc\n\t\t\n" + ('"1"\t2\t3\n' if quotes else "1\t2\t3\n"), "log.tsv")
    assert read.rows.select("a", "b", "c").rows() == [(None, None, None), ("1", "2", "3")]


@pytest.mark.parametrize("block_bytes", [50, 203, 204, 205, 206, 1 << 20])
def test_the_longest_record_there_may_be_is_read_wherever_it_is_cut(block_bytes: int) -> None:
    text = '"' + "x\n" * 99 + 'end"'
    read = raw(f"a,b\n1,{text}\n2,y\n" + "3,z\n" * 150, block_bytes=block_bytes)
    assert read.malformed.is_empty()
    assert read.rows["b"][0] == text.strip('"')
