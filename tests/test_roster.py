"""Promises of `lyceum data pseudonyms`: a school, and nobody else, finds whom scores are about."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from flows.cli.data import data
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import LyceumError, UsageError
from ray_jobs.privacy import load_key
from tests.data_parts import KEY, TIMED, clean_table, csv, delivered


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LYCEUM_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("LYCEUM_HOME", str(tmp_path / "home"))
    return tmp_path / "key"


def asked(*words: object) -> None:
    """Run the command; its errors come out as they are."""
    done = CliRunner().invoke(data, ["pseudonyms", *map(str, words)], catch_exceptions=True)
    if done.exception is not None:
        raise done.exception


def test_who_is_on_the_list_is_found_in_what_was_ingested(tmp_path: Path, key: Path) -> None:
    snapshot = delivered(tmp_path, {"a.csv": csv(TIMED)})
    table = read_parquet(clean_table(snapshot, str(tmp_path / "store")).table)
    key.write_bytes(base64.b64encode(KEY.secret))
    roster = tmp_path / "roster.csv"
    roster.write_text("class,id\n7a,first\n7b,last\n7b,007\n,\n")
    asked(roster, "--out", tmp_path / "found.csv", "--column", "id")
    found = pl.read_csv(tmp_path / "found.csv", infer_schema=False)
    assert found.columns == ["class", "id", "pseudonym"]
    assert found["id"].to_list() == ["first", "last", "007", None]
    assert set(found["pseudonym"][:2]) == set(table["learner"])
    assert found["pseudonym"][2] == KEY.pseudonym("007")
    assert found["pseudonym"][3] is None
    assert stat.S_IMODE((tmp_path / "found.csv").stat().st_mode) == 0o600


def test_a_list_in_parquet_names_learners_in_its_first_column(tmp_path: Path, key: Path) -> None:
    pl.DataFrame({"id": [7, 8], "name": ["ada", "bob"]}).write_parquet(tmp_path / "list.parquet")
    held = load_key(key)
    asked(tmp_path / "list.parquet", "--out", tmp_path / "found.csv")
    found = pl.read_csv(tmp_path / "found.csv", infer_schema=False)
    assert found["pseudonym"].to_list() == [held.pseudonym("7"), held.pseudonym("8")]


@pytest.mark.parametrize(
    ("roster", "column", "says"),
    [
        ("id\nu1\n", "name", "no column 'name'; there are id"),
        ("id,pseudonym\nu1,x\n", "id", "a column 'pseudonym' already"),
        ("", "id", "expected a CSV or Parquet file"),
    ],
)
def test_what_is_no_list_of_learners_is_refused(
    tmp_path: Path, key: Path, roster: str, column: str, says: str
) -> None:
    load_key(key)
    (tmp_path / "roster.csv").write_text(roster)
    with pytest.raises(UsageError, match=says):
        asked(tmp_path / "roster.csv", "--out", tmp_path / "found.csv", "--column", column)
    assert not (tmp_path / "found.csv").exists()


def test_scores_given_for_a_list_are_refused(tmp_path: Path, key: Path) -> None:
    load_key(key)
    pl.DataFrame({"learner": ["a"], "skills": [["x"]]}).write_parquet(tmp_path / "scores.parquet")
    with pytest.raises(UsageError, match="lists in its column 'skills'"):
        asked(tmp_path / "scores.parquet", "--out", tmp_path / "found.csv")


def test_nothing_is_written_over_and_no_key_is_made_up(tmp_path: Path, key: Path) -> None:
    (tmp_path / "roster.csv").write_text("id\nu1\n")
    with pytest.raises(LyceumError, match="no key in"):
        asked(tmp_path / "roster.csv", "--out", tmp_path / "found.csv")
    assert not key.exists()
    load_key(key)
    with pytest.raises(UsageError, match="is there already"):
        asked(tmp_path / "roster.csv", "--out", tmp_path / "roster.csv")
