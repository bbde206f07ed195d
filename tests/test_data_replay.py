"""What replay promises: a mended delivery is what it would have been had it come so, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import store
from ray_jobs.data import runs
from ray_jobs.data.quarantine import ID, bad_rows, identified
from ray_jobs.data.repairs import Admitted
from ray_jobs.errors import ContractError, LyceumError, StoreError
from ray_jobs.privacy import Key
from tests.data_parts import (
    BAD,
    DIRTY,
    FIELDS,
    GARBAGE,
    HEADER,
    KEY,
    TIMED,
    UNTIMED,
    Row,
    School,
    csv,
    delivered,
    good,
    quarantine,
    small_runs,
)

SOME = settings(max_examples=25, deadline=None)  # each writes files


def mended(bad: pl.DataFrame, **values: str) -> pl.DataFrame:
    """Every bad row with these values."""
    return bad.with_columns(pl.lit(text).alias(name) for name, text in values.items())


def at_the_source(lines: Sequence[str], school: School, repairs: pl.DataFrame) -> list[str]:
    """The lines of a log with those that are bad, and their copies, as they were mended."""
    places = pl.DataFrame(quarantine(school.table), ["file", "line", "why", "raw"], orient="row")
    found = identified(places, KEY).join(repairs.drop("line"), on=ID).select("line", *FIELDS)
    instead = {}
    for line, *fields in found.iter_rows():
        learner = lines[line - 1].split(",")[0].strip() if fields[0] != "zoe" else "zoe"
        instead[bare(lines[line - 1])] = ",".join([learner, *fields[1:]][: lines[0].count(",") + 1])
    return [lines[0], *(instead.get(bare(line), line) for line in lines[1:])]


def bare(line: str) -> str:
    return ",".join(field.strip() for field in line.split(","))


@SOME
@given(DIRTY, st.lists(GARBAGE, max_size=4), st.booleans(), st.randoms(use_true_random=False))
def test_a_mended_delivery_is_what_it_would_have_been_had_it_come_so(
    rows: list[Row], garbage: list[str], timed: bool, dice: Random
) -> None:
    header = HEADER if timed else UNTIMED
    body = [*(",".join(row if timed else row[:4]) for row in rows), *garbage]
    dice.shuffle(body)
    lines = [header, *body]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        small_runs(patch)
        school = School(Path(folder, "one"), "\n".join(lines).encode())
        repairs = good(school.bad())
        if not timed:
            repairs = repairs.with_columns(pl.lit(None, pl.String).alias("time"))
        whole = "\n".join(at_the_source(lines, school, repairs))
        right = School(Path(folder, "two"), whole.encode())
        if len(repairs):
            assert school.replay(repairs) == Admitted(len(repairs), 0, 0)
            school.take({})
        assert school.snapshot.digest == right.snapshot.digest
        assert school.table.counts == right.table.counts
        assert school.rows.equals(right.rows)
        assert right.table.quarantined == {}


def test_replayed_twice_it_joins_once(tmp_path: Path) -> None:
    school = School(tmp_path, csv([*TIMED, *BAD]) + b"\ntorn")
    first = school.snapshot
    repairs = good(school.bad())
    assert school.replay(repairs) == Admitted(3, 0, 0)
    assert school.replay(repairs) == Admitted(0, 3, 0)
    school.take({})
    assert (school.table.kept, school.table.read) == (5, 5)
    once = school.snapshot
    school.snapshot = first
    assert school.replay(repairs) == Admitted(0, 3, 0)
    school.take({})
    assert school.snapshot == once


@pytest.mark.parametrize("write", range(1, 6))
def test_killed_at_any_write_and_replayed_again_it_joins_once(
    write: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = School(tmp_path, csv([*TIMED, BAD[0]]), "a.csv")
    school.take({"b.csv": csv([BAD[1]]) + b"\ntorn"})
    repairs = good(school.bad())

    def replayed() -> None:
        school.replay(repairs)
        school.take({})

    whole, writes = store.write_bytes, iter(range(1, 100))

    def dying(uri: str, data: bytes) -> None:
        if next(writes) == write:
            raise StoreError("killed")
        whole(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_bytes", dying)
        with pytest.raises(StoreError, match="killed"):
            replayed()
    replayed()
    assert (school.table.kept, school.table.read, school.table.quarantined) == (5, 5, {})


def test_rows_that_are_left_as_they_were_stay_in_quarantine(tmp_path: Path) -> None:
    school = School(tmp_path, csv([*TIMED, *BAD]) + b"\ntorn")
    bad = school.bad()
    one = bad.filter(pl.col("correct") == "maybe")
    assert school.replay(pl.concat([bad.filter(pl.col(ID) != one[ID]), good(one)])) == Admitted(
        1, 0, 2
    )
    school.take({})
    assert school.table.quarantined == {"malformed_line": 1, "missing_item": 1}
    assert "1 rows stand as they were mended" in " ".join(school.table.notes)


def test_a_repair_that_breaks_a_rule_goes_to_quarantine_and_is_mended_again(tmp_path: Path) -> None:
    school = School(tmp_path, csv([*TIMED, *BAD]) + b"\ntorn")
    for wrong in ("still wrong", "wrong again"):
        school.replay(good(school.bad()).with_columns(correct=pl.lit(wrong)))
        school.take({})
        assert school.table.quarantined == {"invalid_correct": 3}
        assert (school.table.kept, school.table.read) == (2, 5)
    assert school.replay(good(school.bad())) == Admitted(3, 0, 0)
    school.take({})
    assert (school.table.kept, school.table.quarantined) == (5, {})
    learners = {KEY.pseudonym(name) for name in ("first", "last", "ann", "bob", "zoe")}
    assert set(school.rows["learner"]) == learners


def test_a_malformed_line_may_have_been_several_rows(tmp_path: Path) -> None:
    school = School(tmp_path, csv([*TIMED, ("u9", "i", "s", "1", "9")]) + b"\nu1,i1,0;u2")
    line = good(school.bad())
    two = pl.concat([line.with_columns(learner=pl.lit(who)) for who in ("u2", "u1")])
    assert school.replay(two) == Admitted(1, 0, 0)
    school.take({})
    assert (school.table.kept, school.table.read) == (5, 5)
    places = school.snapshot.rows().filter(pl.col("line") == 5)
    assert places["learner"].to_list() == [KEY.pseudonym(who) for who in ("u2", "u1")]


def test_where_a_whole_run_was_malformed_its_lines_are_mended_in_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_runs(monkeypatch)
    torn = "\n".join(f"torn {n}" for n in range(20))
    rows = "\n".join(",".join(row[:4]) for row in TIMED)
    school = School(tmp_path, f"{UNTIMED}\n{torn}\n{rows}".encode())
    assert any(not len(runs.read(run)) for run in school.snapshot.runs)
    lines = good(school.bad()).with_columns(time=pl.lit(None, pl.String))
    school.replay(lines)
    school.take({})
    assert (school.table.kept, school.table.quarantined) == (22, {})
    assert school.snapshot.rows()["line"].to_list() == list(range(2, 24))


def test_an_empty_row_is_no_malformed_line(tmp_path: Path) -> None:
    school = School(tmp_path, csv([*TIMED, ("", "", "", "", "")]) + b"\ntorn")
    lines = school.bad()
    assert school.replay(good(lines.filter(pl.col("raw") == "torn"))) == Admitted(1, 0, 0)
    school.take({})
    assert (school.table.kept, school.table.quarantined) == (3, {"missing_learner": 1})


def test_a_repair_holds_when_the_file_grows_and_not_in_another_file(tmp_path: Path) -> None:
    school = School(tmp_path, csv([*TIMED, *BAD]) + b"\ntorn")
    school.replay(good(school.bad()))
    grown = [("u9", "i", "s", "1", "9"), *TIMED, *BAD]
    school.take({"log.csv": csv(grown) + b"\ntorn"})
    assert (school.table.kept, school.table.quarantined) == (6, {})
    school.take({"other.csv": csv([BAD[1]]) + b"\ntorn"})
    assert school.table.quarantined == {"malformed_line": 1, "missing_item": 1}


def test_a_learner_who_was_misspelt_is_told_as_the_log_tells_them(tmp_path: Path) -> None:
    school = School(tmp_path, csv([*TIMED, ("an", "i", "s", "maybe", "5")]))
    school.replay(mended(school.bad(), learner="ann", correct="1"))
    school.take({})
    right = delivered(tmp_path / "right", {"log.csv": csv([*TIMED, ("ann", "i", "s", "1", "5")])})
    assert school.snapshot.digest == right.digest
    assert KEY.pseudonym("ann") in set(school.rows["learner"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bad: bad.with_columns(pl.lit("q0").alias(ID)), "line 2: q0 is no bad row of snap"),
        (lambda bad: good(bad).drop("skills"), "no column skills; expected id, learner, item"),
        (lambda bad: good(bad).with_columns(mood=pl.lit("x")), "a column mood; expected id"),
        (lambda bad: pl.concat([good(bad), mended(bad, item="x")]), "line 4: q.* is told twice"),
    ],
)
def test_what_is_no_repair_is_refused_with_its_line_and_nothing_is_kept(
    change: Callable[[pl.DataFrame], pl.DataFrame], said: str, tmp_path: Path
) -> None:
    school = School(tmp_path, csv([*TIMED, *BAD]))
    with pytest.raises(ContractError, match=rf"mended\.csv.*{said}"):
        school.replay(change(school.bad()))
    assert not (tmp_path / "store" / "repairs").exists()


def test_the_bad_rows_are_read_under_their_key_alone(tmp_path: Path) -> None:
    school = School(tmp_path, csv([*TIMED, *BAD]) + b"\ntorn")
    told = school.bad().select("file", "line", "reason", "raw", "correct").sort("line").rows()
    assert told == [
        ("log.csv", 4, "invalid_correct", None, "maybe"),
        ("log.csv", 5, "missing_item", None, "1"),
        ("log.csv", 6, "malformed_line", "torn", None),
    ]
    with pytest.raises(LyceumError, match="LYCEUM_KEY_FILE"):
        bad_rows(school.snapshot, school.store, Key(b"x" * 32))
