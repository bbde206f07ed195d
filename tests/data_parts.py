"""Logs for tests, taken from text to clean tables as a run takes them, and mended or erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from ray_jobs.data import clean as cleaning
from ray_jobs.data import pieces, readers
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.quarantine import bad_rows
from ray_jobs.data.repairs import Admitted, admit
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.sources import each_alone, find
from ray_jobs.data.tables import read_parquet
from ray_jobs.families.knowledge import formats, rules
from ray_jobs.families.knowledge.table import Columns
from ray_jobs.privacy import Key

KEY = Key(bytes(32))
SOME = settings(max_examples=40, deadline=None)  # each writes files
FIELDS = ("learner", "item", "skills", "correct", "time")
HEADER = ",".join(FIELDS)
UNTIMED = "learner,item,skills,correct"
Row = tuple[str, str, str, str, str]  # as FIELDS
Moment = tuple[str, str, str]  # learner, item, time: with times, what makes an answer
# Two moments that no drawn row has: with them a log is one with times.
TIMED: tuple[Row, ...] = (("first", "i1", "s1", "1", "1"), ("last", "i1", "s1", "1", "2"))
BAD: tuple[Row, ...] = (("ann", "i", "s", "maybe", "5"), ("bob", "", "s", "1", "6"))


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


class School:
    """A folder of logs, and what became of them."""

    def __init__(self, folder: Path, text: bytes, name: str = "log.csv"):
        self.folder = folder
        self.store = str(folder / "store")
        self.take({name: text})

    def take(self, files: dict[str, bytes]) -> None:
        """Deliver files beside those that lie there; nothing: the same again."""
        self.snapshot: Snapshot = delivered(self.folder, files)
        name = f"{self.snapshot.name}-{len(list(self.folder.rglob('counts.json')))}"
        self.table: CleanTable = clean_table(self.snapshot, f"{self.store}/stages/clean/{name}")

    def bad(self) -> pl.DataFrame:
        return bad_rows(self.snapshot, self.store, KEY)

    def replay(self, rows: pl.DataFrame) -> Admitted:
        rows.write_csv(self.folder / "mended.csv")
        (source,) = find(str(self.folder / "mended.csv"))
        return admit(source, self.snapshot, self.store, KEY)

    @property
    def rows(self) -> pl.DataFrame:
        return read_parquet(self.table.table)


def good(bad: pl.DataFrame) -> pl.DataFrame:
    """Bad rows made good, each another answer: who is known stays who they are."""
    number = pl.int_range(1000, 1000 + pl.len()).cast(pl.String)
    return bad.with_columns(
        pl.col("learner").fill_null("zoe"), item="new " + number, correct=pl.lit("1"),
        time=number, skills=pl.col("skills").fill_null("s9"),
    )  # fmt: skip


def small_runs(patch: pytest.MonkeyPatch) -> None:
    """Have pieces lie in several runs of a few rows."""
    patch.setattr(pieces, "RUN_ROWS", 3)
    patch.setattr(readers, "batches", partial(readers.batches, block_bytes=50))


def said(folder: Path) -> str:
    """All that is written below a folder, whatever it is packed or sealed in."""
    return "\n".join(_text(path) for path in sorted(folder.rglob("*")) if path.is_file())


def _text(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix not in {".arrow", ".parquet"}:
        return data.decode("utf-8", "replace")
    frame = (pl.read_ipc if path.suffix == ".arrow" else pl.read_parquet)(data)
    sealed = [KEY.unseal(text) for text in frame["sealed"]] if "sealed" in frame.columns else []
    # What is packed may hold more than is read of it.
    whole = [data.decode("latin-1"), frame.drop("sealed", strict=False).write_json()]
    return "\n".join([*whole, *sealed])
