"""Readers of tables: any CSV, TSV, JSON lines or Parquet, and the Open University's joined files.

Every value stays text here; what it means is settled when the table is cleaned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import polars as pl

from ray_jobs.data import readers
from ray_jobs.data.delimited import ROW
from ray_jobs.data.names import finds_people, shown
from ray_jobs.data.raw import PLACES, Raw
from ray_jobs.data.sources import Source, each_alone
from ray_jobs.errors import ContractError
from ray_jobs.families.tabular import oulad
from ray_jobs.families.tabular.table import PREFIX, Columns

MISSING = ("", "na", "n/a", "nan", "null", "?", ".")  # whatever the case
GROUPS = ("group", "learner", "learner_id", "student_id", "user_id", "id_student")
TIMES = ("time", "timestamp", "date", "datetime")


def units(sources: Sequence[Source]) -> list[list[Source]]:
    """The Open University's files are one table; every other file is its own."""
    return [list(sources)] if oulad.recognised(sources) else each_alone(sources)


def read(unit: Sequence[Source], columns: Columns) -> Iterator[Raw]:
    """Rows of a table with every column as text behind `x:`, and `group` and `time`.

    Raises ContractError where a named column is not there.
    """
    if len(unit) > 1:
        raw = oulad.joined(unit, columns.day)
    else:
        (source,) = unit
        raw = readers.read(source)
    where = unit[0].url
    own = [name for name in raw.rows.columns if name not in PLACES]
    for key in ("label", "group", "time"):
        _must_exist(where, key, [getattr(columns, key)], own)
    _must_exist(where, "ignore", columns.ignored, own)
    text = pl.col(own)
    rows = raw.rows.with_columns(
        pl.when(text.str.to_lowercase().is_in(MISSING)).then(None).otherwise(text).name.keep()
    )
    people = _people(rows.select(own), columns)
    note = f"{where}: left out, since they name people: {', '.join(people)}; see columns.allow"
    kept = [name for name in own if name not in people]
    notes = (*raw.notes, note) if people else raw.notes
    yield replace(raw, rows=_with_roles(rows, kept, columns), notes=notes)


def _group(own: Sequence[str], columns: Columns) -> str:
    return columns.group or next((n for n in own if n.lower() in GROUPS), "")


def _people(rows: pl.DataFrame, columns: Columns) -> list[str]:
    """Columns that name people, and are not the one that becomes a pseudonym."""
    meant = {_group(rows.columns, columns), columns.label, *columns.allowed, *columns.ignored}
    others = [rows[name] for name in rows.columns if name not in meant]
    return [one.name for one in others if one.name.lower() in GROUPS or finds_people(one)]


def _with_roles(rows: pl.DataFrame, own: list[str], columns: Columns) -> pl.DataFrame:
    group = _group(own, columns)
    time = columns.time or next((n for n in own if n.lower() in TIMES), "")
    kept = [n for n in own if n not in {group, time, ROW, *columns.ignored}]
    # Without a name of its own a row is known by all it says: its copies stay together.
    itself = pl.concat_str(pl.col(kept).fill_null(""), separator="\x1f")
    return rows.select(
        (pl.col(group) if group else itself).alias("group"),
        (pl.col(time) if time else pl.lit(None, pl.String)).alias("time"),
        *(pl.col(name).alias(PREFIX + name) for name in kept),
        *PLACES,
    )


def _must_exist(where: str, setting: str, asked: Sequence[str], own: Sequence[str]) -> None:
    lacking = [name for name in asked if name and name not in own]
    if lacking:
        raise ContractError(
            f"{where}: no column {lacking[0]!r} (columns.{setting}); there are {shown(own)}. "
            f"Name one with --set columns.{setting}=NAME"
        )
