"""What ingestion and cleaning promise: every row counted once, and told why it went where."""

from __future__ import annotations

import io
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import store
from ray_jobs.data import clean as cleaning
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.sources import each_alone, find
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import ContractError, UsageError
from ray_jobs.families.knowledge import formats, rules
from ray_jobs.families.knowledge.table import CLEAN, Columns
from ray_jobs.privacy import Key

KEY = Key(bytes(32))
SOME = settings(max_examples=40, deadline=None)  # each writes files
FIELDS = ("learner", "item", "skills", "correct", "time")
HEADER = ",".join(FIELDS)
Row = tuple[str, str, str, str, str]  # as FIELDS
Moment = tuple[str, str, str]  # learner, item, time: with times, what makes an answer
# Two moments that no drawn row has: with them a log is one with times.
TIMED: tuple[Row, ...] = (("first", "i1", "s1", "1", "1"), ("last", "i1", "s1", "1", "2"))


def delivered(folder: Path, files: dict[str, bytes], columns: Columns | None = None) -> Snapshot:
    """Lay files into a folder and ingest them into a store beside it."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (logs / name).write_bytes(data)
    return taken(str(logs), folder / "store", columns=columns)[0]


def taken(
    data: str, store_: Path, *, columns: Columns | None = None, key: Key = KEY
) -> tuple[Snapshot, bool]:
    """A delivery as a snapshot, and whether all of it was known."""
    return ingest(
        each_alone(find(data)),
        lambda unit: formats.read(unit, columns or Columns()),
        group="learner",
        key=key,
        store_uri=str(store_),
        inputs={"columns": asdict(columns or Columns())},
    )


def cleaned(
    folder: Path, files: dict[str, bytes], columns: Columns | None = None, limit: float = 1.0
) -> CleanTable:
    snapshot = delivered(folder, files, columns)
    return clean_table(snapshot, str(folder / "clean"), columns, limit)


def clean_table(
    snapshot: Snapshot, uri: str, columns: Columns | None = None, limit: float = 1.0
) -> CleanTable:
    return cleaning.clean(
        snapshot,
        lambda rows, timed: rules.clean(rows, timed, columns or Columns()),
        uri=uri,
        key=KEY,
        max_bad_fraction=limit,
    )


def csv(rows: Sequence[Sequence[str]], header: str = HEADER) -> bytes:
    return "\n".join([header, *(",".join(row) for row in rows)]).encode()


def quarantine(table: CleanTable) -> list[tuple[str, int, str, str]]:
    """File, line, reason and unsealed text of every bad row."""
    frame = read_parquet(table.quarantine).sort("file", "line")
    return [(file, line, why, KEY.unseal(data)) for file, line, why, data in frame.iter_rows()]


def short(table: CleanTable, *columns: str) -> list[tuple[object, ...]]:
    return read_parquet(table.table).select(columns).rows()


def rows_of(*drawn: st.SearchStrategy[str]) -> st.SearchStrategy[list[Row]]:
    row = st.tuples(*drawn)
    return st.lists(row, max_size=12).map(lambda rows: [*TIMED, *rows])


def one_of(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


LEARNERS, ITEMS = one_of("ann", "bob"), one_of("i1", "i2")
SKILLS, MOMENTS = one_of("", "s1", "s2", "s2;s1"), one_of("10", "20", "30")
GOOD = rows_of(LEARNERS, ITEMS, SKILLS, one_of("0", "1"), MOMENTS)
DIRTY = rows_of(
    one_of("ann", "bob", "", " "),
    one_of("i1", "i2", ""),
    SKILLS,
    one_of("0", "1", "1.0", "TRUE", "0.5", "", "7", "-1", "abc", "nan"),
    one_of("10", "20", "30", "", "-5", "soon", "1e99", "inf"),
)
GARBAGE = one_of("", "  ", "torn,line", "a,b,c,d,e,f,g", HEADER)


@SOME
@given(DIRTY, st.lists(GARBAGE, max_size=4), st.randoms(use_true_random=False))
def test_every_row_read_is_kept_quarantined_merged_or_a_repeat(
    rows: list[Row], garbage: list[str], dice: random.Random
) -> None:
    lines = [*(",".join(row) for row in rows), *garbage]
    dice.shuffle(lines)
    with TemporaryDirectory() as folder:
        table = cleaned(Path(folder), {"log.csv": "\n".join([HEADER, *lines]).encode()})
        bad = quarantine(table)
        kept = len(short(table, "learner"))
    assert table.read == sum(bool(line.strip()) for line in lines)
    assert (table.kept, sum(table.quarantined.values())) == (kept, len(bad))
    assert table.read == kept + len(bad) + table.merged + table.repeats
    for _, number, why, raw in bad:
        line = lines[number - 2]
        if why in {"malformed_line", "repeated_header"}:
            assert raw == line
        else:
            assert line.count(",") == 4


def broken(row: Row) -> str:
    """Why a row cannot be taken, by a plain reading of the rules."""
    learner, item, _, correct, time = (field.strip() for field in row)
    breaches = {
        "missing_learner": not learner,
        "missing_item": not item,
        "missing_correct": not correct,
        "invalid_correct": correct not in {"0", "1", "1.0", "TRUE", "0.5"},
        "missing_time": not time,
        "invalid_time": not time.isdigit(),
    }
    return next((why for why, breach in breaches.items() if breach), "")


def value(correct: str) -> float:
    return 1.0 if correct == "TRUE" else float(correct)


def expected(rows: Sequence[Row]) -> tuple[Counter[str], int, dict[Moment, set[str]]]:
    """Quarantine by reason, repeats, and answers with their skills, one row at a time."""
    reasons: Counter[str] = Counter()
    seen: dict[Moment, set[tuple[float, frozenset[str]]]] = {}
    repeats = 0
    for row in rows:
        why = broken(row)
        if why:
            reasons[why] += 1
            continue
        learner, item, skills, correct, time = row
        said = (value(correct), frozenset(filter(None, skills.split(";"))))
        known = seen.setdefault((learner, item, time), set())
        repeats += said in known
        known.add(said)
    answers: dict[Moment, set[str]] = {}
    for key, known in seen.items():
        if len({outcome for outcome, _ in known}) > 1:
            reasons["conflict"] += len(known)
        else:
            answers[key] = {skill for _, skills in known for skill in skills}
    return reasons, repeats, answers


@SOME
@given(DIRTY)
def test_each_bad_row_has_its_own_reason_and_no_good_row_has_any(rows: list[Row]) -> None:
    with TemporaryDirectory() as folder:
        table = cleaned(Path(folder), {"log.csv": csv(rows)})
        kept = pl.read_parquet(table.table)
    reasons, repeats, answers = expected(rows)
    assert table.quarantined == dict(sorted(reasons.items()))
    assert table.repeats == repeats
    found = {
        (learner, item, time): set(skills)
        for learner, item, time, skills in kept.select("learner", "item", "time", "skills").rows()
    }
    assert found == {
        (KEY.pseudonym(learner), item, float(time)): skills
        for (learner, item, time), skills in answers.items()
    }
    assert kept.schema == CLEAN


def in_form(rows: Sequence[Row], form: str) -> bytes:
    dicts = [dict(zip(FIELDS, row, strict=True)) for row in rows]
    if form == "parquet":
        buffer = io.BytesIO()
        typed = pl.DataFrame(dicts).cast({"time": pl.Int64, "correct": pl.Float32})
        typed.write_parquet(buffer)
        return buffer.getvalue()
    if form == "jsonl":
        values = [{**d, "time": int(d["time"]), "correct": bool(int(d["correct"]))} for d in dicts]
        return b"\n".join(orjson.dumps(v) for v in values)
    return csv(rows).replace(b",", b"\t") if form == "tsv" else csv(rows)


@SOME
@given(GOOD, st.randoms(use_true_random=False), st.integers(0, 14))
def test_form_order_and_file_boundaries_leave_no_trace_in_a_log_with_times(
    rows: list[Row], dice: random.Random, cut: int
) -> None:
    shuffled = dice.sample(rows, len(rows))
    forms = dice.sample(["csv", "tsv", "jsonl", "parquet"], 2)
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part]
    files = {f"{i}.{f}": in_form(p, f) for i, (p, f) in enumerate(zip(parts, forms, strict=False))}
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        first = cleaned(Path(one), {"log.csv": csv(rows)})
        second = cleaned(Path(two), files)
        assert second.digest == first.digest
        tables = [pl.read_parquet(t.table) for t in (first, second)]
    assert tables[0].equals(tables[1])
    assert first.counts == second.counts


@SOME
@given(GOOD)
def test_a_log_delivered_twice_adds_repeats_and_nothing_else(rows: list[Row]) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        once = cleaned(Path(one), {"a.csv": csv(rows)})
        twice = cleaned(Path(two), {"a.csv": csv(rows), "b.csv": csv(rows)})
        tables = [pl.read_parquet(t.table) for t in (once, twice)]
    assert tables[0].equals(tables[1])
    assert twice.counts == {
        **once.counts,
        "read": 2 * len(rows),
        "repeats": once.repeats + len(rows),
    }


@SOME
@given(GOOD, st.integers(0, 13), st.sampled_from(FIELDS))
def test_another_row_is_another_digest(rows: list[Row], at: int, field: str) -> None:
    changed = list(rows[at % len(rows)])
    changed[FIELDS.index(field)] = "0.25" if field in {"correct", "time"} else "other"
    other = [*rows[: at % len(rows)], tuple(changed), *rows[at % len(rows) + 1 :]]
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        digest = delivered(Path(one), {"log.csv": csv(rows)}).digest
        assert delivered(Path(two), {"log.csv": csv(other)}).digest != digest


UNTIMED = "learner,item,skills,correct"


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
        assert rows[0][0] not in str(caught.value)


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


def test_past_the_bad_fraction_cleaning_stops_and_leaves_the_quarantine(tmp_path: Path) -> None:
    bad = [("a", "", "s", "1", "5")]
    files = {"log.csv": csv([*TIMED, *bad])}
    assert cleaned(tmp_path / "at", files, limit=1 / 3).kept == 2
    with pytest.raises(ContractError) as caught:
        cleaned(tmp_path / "past", files, limit=0.33)
    assert "1 of 3 rows are bad (1 missing_item)" in str(caught.value)
    assert "--set max_bad_fraction" in str(caught.value)
    folder = tmp_path / "past" / "clean"
    assert sorted(path.name for path in folder.iterdir()) == ["counts.json", "quarantine"]
    assert str(folder) in str(caught.value)
    frame = read_parquet(str(folder / "quarantine"))
    assert frame.select("file", "line", "reason").rows() == [("log.csv", 4, "missing_item")]


def test_a_log_without_a_valid_row_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no valid row among 2: 2 invalid_correct"):
        cleaned(tmp_path, {"log.csv": csv([("a", "i", "s", "7", "5"), ("a", "i", "s", "x", "6")])})


def test_a_log_without_a_readable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no row could be read from log\.csv.*malformed_line"):
        cleaned(tmp_path, {"log.csv": csv([("a",), ("b",)])})
    with pytest.raises(ContractError, match="no row could be read"):
        cleaned(tmp_path / "header", {"log.csv": HEADER.encode()})


def test_a_bad_rows_sealed_text_says_what_the_row_said(tmp_path: Path) -> None:
    table = cleaned(tmp_path, {"log.csv": csv([*TIMED, ("ann", "i", "s", "maybe", "5")])})
    ((file, line, why, raw),) = quarantine(table)
    assert (file, line, why) == ("log.csv", 4, "invalid_correct")
    said = orjson.loads(raw)
    assert said == {
        "learner": KEY.pseudonym("ann"),
        "item": "i",
        "skills": "s",
        "correct": "maybe",
        "time": "5",
    }


def test_a_snapshot_never_changes(tmp_path: Path) -> None:
    rows = [*TIMED, ("a", "i", "s", "1", "5")]
    first = delivered(tmp_path, {"log.csv": csv(rows)})
    before = {p.name: p.read_bytes() for p in Path(first.uri).iterdir()}
    second = delivered(tmp_path, {"log.csv": csv(rows[::-1])})
    assert second == first
    assert {p.name: p.read_bytes() for p in Path(first.uri).iterdir()} == before


def test_other_malformed_lines_are_another_snapshot_of_the_same_rows(tmp_path: Path) -> None:
    uris = set()
    for torn in ("a,b", "c,d", "a,b\na,b"):
        snapshot = delivered(tmp_path, {"log.csv": csv(TIMED) + b"\n" + torn.encode()})
        uris.add(snapshot.uri)
        (bad,) = snapshot.quarantines
        assert len(read_parquet(bad)) == torn.count("\n") + 1
    assert len(uris) == 3
    digests = {store.read_json(f"{uri}/manifest.json")["digest"] for uri in uris}
    assert len(digests) == 1


def test_a_snapshot_that_was_half_written_is_written_again(tmp_path: Path) -> None:
    first = delivered(tmp_path, {"log.csv": csv(TIMED)})
    Path(first.uri, "manifest.json").unlink()
    (run,) = first.runs
    Path(run.uri).write_bytes(b"half")
    again = delivered(tmp_path, {"log.csv": csv(TIMED)})
    assert again == first
    assert len(again.rows()) == len(TIMED)


def test_another_key_is_another_snapshot(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(csv(TIMED))
    one, two = (
        taken(str(tmp_path / "log.csv"), tmp_path / "store", key=key)[0]
        for key in (KEY, Key(b"x" * 32))
    )
    assert one.digest != two.digest
    rows = [snapshot.rows() for snapshot in (one, two)]
    assert rows[0]["bucket"].equals(rows[1]["bucket"])
    assert not set(rows[0]["learner"]) & set(rows[1]["learner"])


def test_each_stage_says_its_counts_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="ray_jobs"):
        table = cleaned(tmp_path, {"log.csv": csv([*TIMED, ("a", "", "s", "1", "5"), ("torn",)])})
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith(
        "ingest: 4 rows from 1 files, 1 of them read now, 1 malformed; snapshot "
    )
    assert messages[1:] == [
        "clean: 4 rows read = 2 kept + 2 quarantined + 0 merged + 0 repeats",
    ]
    assert replace(table).table == f"{table.uri}/table"


def test_names_that_are_too_long_are_set_apart_each_for_what_it_is(tmp_path: Path) -> None:
    long = "x" * 513
    rows = [*TIMED, ("a", long, "s", "1", "5"), ("a", "i", f"s;{long}", "1", "6")]
    assert cleaned(tmp_path, {"log.csv": csv(rows)}).quarantined == {
        "long_item": 1,
        "long_skill": 1,
    }
