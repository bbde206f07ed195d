"""What ingestion and cleaning promise: every row counted once, and told why it went where."""

from __future__ import annotations

import io
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs import store
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.privacy import Key
from tests.data_parts import (
    DIRTY,
    FIELDS,
    GARBAGE,
    GOOD,
    HEADER,
    KEY,
    SOME,
    TIMED,
    Moment,
    Row,
    cleaned,
    csv,
    delivered,
    quarantine,
    short,
    taken,
)


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
