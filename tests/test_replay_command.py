"""`lyceum data replay`: bad rows of any kind of table out to their owner, and mended ones back."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from flows.cli import console, data
from ray_jobs.data.clean import CleanTable, clean
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.quarantine import bad_rows
from ray_jobs.data.repairs import Admitted, admit
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.sources import find
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import UsageError
from ray_jobs.families.tabular import formats as tabular_formats
from ray_jobs.families.tabular import rules as tabular_rules
from ray_jobs.families.tabular import table as tabular
from tests.data_parts import BAD, KEY, TIMED, School, csv, good
from tests.stages_parts import write_key


def test_a_table_of_any_columns_is_mended_by_its_own(tmp_path: Path) -> None:
    def taken(text: str) -> tuple[Snapshot, CleanTable]:
        (tmp_path / "log.csv").write_text(text)
        columns = tabular.Columns(label="passed")
        units = tabular_formats.units(find(str(tmp_path / "log.csv")))
        snapshot, _ = ingest(
            units,
            lambda unit: tabular_formats.read(unit, columns),
            group="group",
            ordered=False,
            key=KEY,
            store_uri=str(tmp_path / "store"),
        )
        table = clean(
            snapshot,
            lambda rows, timed: tabular_rules.clean(rows, timed, columns),
            uri=str(tmp_path / "store" / "stages" / "clean" / snapshot.name),
            key=KEY,
            max_bad_fraction=1.0,
            whole=True,
        )
        return snapshot, table

    rows = [f"{n}.5,{'yes' if n % 3 else 'no'}" for n in range(60)]
    lines = ["hours,passed", *rows, "7.25,", "torn"]
    snapshot, table = taken("\n".join(lines))
    assert table.quarantined == {"malformed_line": 1, "missing_label": 1}
    bad = bad_rows(snapshot, str(tmp_path / "store"), KEY)
    whole = bad.with_columns(
        pl.col("x:hours").fill_null("8.25"), pl.col("group").fill_null("8.25,no"),
        pl.lit("no").alias("x:passed"),
    )  # fmt: skip
    whole.write_csv(tmp_path / "mended.csv")
    (source,) = find(str(tmp_path / "mended.csv"))
    assert admit(source, snapshot, str(tmp_path / "store"), KEY) == Admitted(2, 0, 0)
    _, table = taken("\n".join(lines))
    assert (table.kept, table.quarantined) == (62, {})
    assert {7.25, 8.25} <= set(read_parquet(table.table)["x:hours"])


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[School, io.StringIO]:
    """A school as the command line finds it, and what is printed."""
    school = School(tmp_path, csv([*TIMED, *BAD]) + b"\ntorn \xff")
    write_key(tmp_path / "key", KEY.secret)
    text = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=text, highlight=False, width=1000))
    for name, path in {"STORE": "store", "HOME": "home", "KEY_FILE": "key"}.items():
        monkeypatch.setenv(f"LYCEUM_{name}", str(tmp_path / path))
    return school, text


def test_bad_rows_are_written_for_their_owner_alone_and_taken_in_again(
    at: tuple[School, io.StringIO], tmp_path: Path
) -> None:
    school, text = at
    path = tmp_path / "bad.csv"
    data.replay(school.snapshot.name, write=path)
    assert "3 bad rows in" in text.getvalue()
    assert path.stat().st_mode & 0o777 == 0o600
    data.replay(school.snapshot.name, str(path))
    assert "0 bad rows mended, 0 had been so before, 3 left as they are" in text.getvalue()
    with pytest.raises(UsageError, match=r"bad\.csv is there already"):
        data.replay(school.snapshot.name, write=path)
    good(pl.read_csv(path, infer_schema=False)).write_csv(path)
    data.replay(school.snapshot.name, str(path))
    assert "3 bad rows mended" in text.getvalue()
    school.take({})
    assert (school.table.kept, school.table.quarantined) == (5, {})
    assert not [note for note in school.table.notes if "encoding" in note]


def test_replay_is_told_what_to_do(at: tuple[School, io.StringIO], tmp_path: Path) -> None:
    school, _ = at
    for both in ({}, {"file": "x.csv", "write": tmp_path / "y.csv"}):
        with pytest.raises(UsageError, match="either --write FILE"):
            data.replay(school.snapshot.name, **both)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"none\.csv: nothing there"):
        data.replay(school.snapshot.name, str(tmp_path / "none.csv"))
    with pytest.raises(UsageError, match="cannot be written"):
        data.replay(school.snapshot.name, write=tmp_path / "nowhere" / "bad.csv")
