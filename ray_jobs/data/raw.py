"""Files to raw rows: every value as text, every row with its file and line.

What cannot be split into columns is not lost and not guessed: it comes back
as malformed, with its raw text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError

EXTRA = "__extra__"
MALFORMED = pl.Schema({"file": pl.String, "line": pl.Int64, "reason": pl.String, "raw": pl.String})


@dataclass(frozen=True)
class Raw:
    """Rows of one file: String columns, `file`, `line` (1-based), and what was malformed."""

    rows: pl.DataFrame
    malformed: pl.DataFrame  # MALFORMED


def read(source: Source) -> Raw:
    """Read a table in CSV, TSV, JSON lines or Parquet; raises ContractError when it is none."""
    if source.kind == ".parquet":
        return _parquet(source)
    data = source.read()
    if not data.strip():
        raise ContractError(f"{source.url} is empty; expected a header and rows")
    if source.kind in (".jsonl", ".ndjson", ".json"):
        return _json_lines(source, data)
    return _delimited(source, data)


def rename(raw: Raw, names: Mapping[str, str], source: Source) -> Raw:
    """Keep and rename columns: {canonical name: source column}."""
    keep = [pl.col(old).alias(new) for new, old in names.items()]
    return Raw(raw.rows.select(*keep, "file", "line"), raw.malformed)


def _delimited(source: Source, data: bytes) -> Raw:
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    head = data.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    separator = max("\t,;|", key=head.count)
    names = next(csv.reader(io.StringIO(head), delimiter=separator))
    if len(set(names)) < len(names):
        raise ContractError(f"{source.url}, line 1: a column stands twice in {names}")
    schema = dict.fromkeys([*names, EXTRA], pl.String)
    try:
        frame = pl.read_csv(
            data,
            has_header=False,
            skip_rows=1,
            separator=separator,
            schema=schema,
            truncate_ragged_lines=True,
            encoding="utf8-lossy",
            row_index_name="line",
            row_index_offset=2,
            raise_if_empty=False,
            missing_columns="insert",
        )
    except pl.exceptions.PolarsError as error:
        raise ContractError(
            f"{source.url} is not a table separated by {separator!r}: {error}"
        ) from error
    frame = frame.with_columns(pl.lit(source.name).alias("file"), pl.col("line").cast(pl.Int64))
    return _well_formed(frame, names, separator, data.splitlines())


def _well_formed(frame: pl.DataFrame, names: list[str], separator: str, lines: list[bytes]) -> Raw:
    """Set apart rows with too many or too few fields, or with bytes that are not UTF-8.

    Where quoted fields hold line breaks, rows and lines no longer agree; the
    raw text is then put together from the fields.
    """
    joined = pl.concat_str([*names, EXTRA], separator=separator, ignore_nulls=True)
    raw = joined
    if len(lines) == len(frame) + 1:
        raw = pl.Series("raw", [line.decode("utf-8", "replace") for line in lines[1:]])
    few = pl.col("raw").str.count_matches(separator, literal=True) < len(names) - 1
    unreadable = pl.any_horizontal(pl.col(names).str.contains("\ufffd", literal=True))
    reason = (
        pl.when(pl.col(EXTRA).is_not_null() | (pl.col(names[-1]).is_null() & few))
        .then(pl.lit("malformed_line"))
        .when(unreadable)
        .then(pl.lit("unreadable_bytes"))
        .alias("reason")
    )
    frame = frame.with_columns(raw.alias("raw")).with_columns(reason)
    bad = frame.filter(pl.col("reason").is_not_null())
    return Raw(
        frame.filter(pl.col("reason").is_null()).drop(EXTRA, "reason", "raw"),
        bad.select(MALFORMED.names()),
    )


def _json_lines(source: Source, data: bytes) -> Raw:
    rows: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict):
            rows.append({**{k: _text(v) for k, v in value.items()}, "line": number})
        else:
            raw = line.decode("utf-8", "replace")
            bad.append({"line": number, "reason": "malformed_line", "raw": raw})
    if not rows:
        raise ContractError(f"{source.url}: no line is a JSON object")
    columns = {k for row in rows for k in row} - {"line"}
    frame = pl.DataFrame(rows, schema={**dict.fromkeys(sorted(columns), pl.String), "line": pl.Int64})
    malformed = pl.DataFrame([{"file": source.name, **b} for b in bad], schema=MALFORMED)
    return Raw(frame.with_columns(pl.lit(source.name).alias("file")), malformed)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list):
        return ";".join(str(v) for v in value)
    return str(value)


def _parquet(source: Source) -> Raw:
    try:
        frame = pl.read_parquet(source.url)
    except pl.exceptions.PolarsError as error:
        raise ContractError(f"{source.url} is not Parquet: {error}") from error
    lists = [n for n, t in frame.schema.items() if isinstance(t, pl.List)]
    flags = [n for n, t in frame.schema.items() if t == pl.Boolean]
    frame = frame.with_columns(
        pl.col(lists).cast(pl.List(pl.String)).list.join(";"), pl.col(flags).cast(pl.Int8)
    ).select(pl.all().cast(pl.String))
    line = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("line")
    frame = frame.with_columns(line, pl.lit(source.name).alias("file"))
    return Raw(frame, pl.DataFrame(schema=MALFORMED))
