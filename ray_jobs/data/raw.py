"""Files to raw rows: every value as text, every row with its file and line.

What cannot be split into columns is not lost and not guessed: it comes back
as malformed, with its raw text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import polars as pl
import polars.selectors as cs

from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError

MALFORMED = pl.Schema({"file": pl.String, "line": pl.Int64, "reason": pl.String, "raw": pl.String})
RECORD = pl.Schema({"line": pl.Int64(), "raw": pl.String(), "fields": pl.List(pl.String())})
UNREADABLE = "\ufffd"  # stands where bytes are not UTF-8
ROW = "row"  # names the number that a table's rows begin with where its header does not
LONGEST_RECORD = 100  # lines that one record with quoted line breaks may take


@dataclass(frozen=True)
class Raw:
    """Rows of one file: String columns, `file`, `line` (1-based), and what was malformed.

    A column of the log's own called file or line has an underscore behind it.
    """

    rows: pl.DataFrame
    malformed: pl.DataFrame  # MALFORMED
    notes: tuple[str, ...] = ()  # what a person should know of how it was read


def read(source: Source, data: bytes, *, list_separator: str = ";") -> Raw:
    """Read a table in CSV, TSV, JSON lines or Parquet; raises ContractError when it is none.

    Lists, as JSON and Parquet have them, become text with a separator between.
    """
    if source.kind == ".parquet":
        return _parquet(source, data, list_separator)
    text = decoded(source, data)
    if not text.strip():
        raise ContractError(f"{source.url} is empty; expected a header and rows")
    if source.kind in {".jsonl", ".ndjson", ".json"}:
        return _json_lines(source, text, list_separator)
    return _delimited(source, text)


def decoded(source: Source, data: bytes) -> str:
    """UTF-8 text with plain line feeds; other bytes become UNREADABLE."""
    if b"\0" in data[:4096]:
        raise ContractError(
            f"{source.url} holds NUL bytes: it is binary or UTF-16; expected UTF-8 text "
            f"(iconv -f UTF-16 -t UTF-8)"
        )
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.decode("utf-8", "replace")


def rename(raw: Raw, names: Mapping[str, str]) -> Raw:
    """Keep and rename columns: {canonical name: source column}."""
    keep = [pl.col(old).alias(new) for new, old in names.items()]
    return replace(raw, rows=raw.rows.select(*keep, "file", "line"))


def _delimited(source: Source, text: str) -> Raw:
    header, _, body = text.partition("\n")
    separator = max("\t,;|", key=header.count)
    names = [own(n) for n in next(csv.reader([header], delimiter=separator))]
    if len(set(names)) < len(names):
        raise ContractError(f"{source.url}, line 1: a column stands twice in {names}")
    records = _records(body.split("\n"), separator)
    notes: tuple[str, ...] = ()
    if _numbered(records, len(names)):
        notes = (f"{source.name}: its rows begin with a number that the header does not name",)
        names = [ROW, *names]
    malformed = _faults(records, header, len(names))
    bad = malformed.is_not_null()
    rows = records.filter(~bad).select(
        *(pl.col("fields").list.get(i).alias(name) for i, name in enumerate(names)),
        pl.lit(source.name).alias("file"),
        "line",
    )
    faults = records.with_columns(malformed, pl.lit(source.name).alias("file")).filter(bad)
    return Raw(rows, faults.select(MALFORMED.names()), notes)


def _numbered(records: pl.DataFrame, width: int) -> bool:
    """Whether every row has one field more than the header, a number: as R writes tables."""
    fields = pl.col("fields").list
    whole = records.filter(fields.len() == width + 1)
    if len(whole) <= len(records) / 2:
        return False
    return bool(whole.select(fields.first().str.contains(r"^\d+$").all()).item())


def own(name: str) -> str:
    """A column name of the log, out of the way of ours."""
    name = name.strip()
    return f"{name}_" if name in {"file", "line"} else name


def _faults(records: pl.DataFrame, header: str, width: int) -> pl.Series:
    """The reason why a record is no row; null where it is one."""
    count = pl.col("fields").list.len().fill_null(0)
    reason = (
        pl.when(pl.col("raw") == header)  # logs were laid end to end
        .then(pl.lit("repeated_header"))
        .when(count != width)
        .then(pl.lit("malformed_line"))
        .when(pl.col("raw").str.contains(UNREADABLE, literal=True))
        .then(pl.lit("unreadable_bytes"))
        .alias("reason")
    )
    return records.select(reason)["reason"]


def _records(lines: list[str], separator: str) -> pl.DataFrame:
    """Each record with its first line's number, raw text and fields; blank lines are none.

    Fields are null where quotes are unbalanced: that line alone is lost, not
    everything up to the next quote.
    """
    if any('"' in line for line in lines):
        return pl.DataFrame(list(_quoted(lines, separator)), schema=RECORD, orient="row")
    frame = pl.DataFrame({"raw": lines}, schema={"raw": pl.String})
    line = pl.int_range(2, pl.len() + 2, dtype=pl.Int64).alias("line")
    fields = pl.col("raw").str.split(separator).alias("fields")
    return frame.select(line, "raw", fields).filter(pl.col("raw").str.strip_chars() != "")


def _quoted(lines: list[str], separator: str) -> Iterator[tuple[int, str, list[str] | None]]:
    at = 0
    while at < len(lines):
        line = at + 2  # counted from 1, below the header
        taken, fields = _record(lines[at : at + LONGEST_RECORD], separator)
        raw = "\n".join(lines[at : at + taken])
        if raw.strip():
            yield line, raw, fields
        at += taken


def _record(lines: Sequence[str], separator: str) -> tuple[int, list[str] | None]:
    """How many lines the record that starts here takes, and its fields."""
    if '"' not in lines[0]:
        return 1, lines[0].split(separator)
    reader = csv.reader([f"{line}\n" for line in lines], delimiter=separator, strict=True)
    try:
        fields = next(reader)
    except csv.Error:
        return 1, None
    return reader.line_num, fields


def _json_lines(source: Source, text: str, list_separator: str) -> Raw:
    rows: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        value = _json_object(line)
        if UNREADABLE in line:
            bad.append({"line": number, "reason": "unreadable_bytes", "raw": line})
        elif value is None:
            bad.append({"line": number, "reason": "malformed_line", "raw": line})
        else:
            texts = {own(k): _text(v, list_separator) for k, v in value.items()}
            rows.append({**texts, "line": number})
    if not rows:
        raise ContractError(f"{source.url}: no line is a JSON object; expected one object a line")
    names = sorted({name for row in rows for name in row} - {"line"})
    frame = pl.DataFrame(rows, schema={**dict.fromkeys(names, pl.String), "line": pl.Int64})
    return Raw(frame.with_columns(pl.lit(source.name).alias("file")), malformed(source, bad))


def malformed(source: Source, bad: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Faults of one file as MALFORMED; each has line, reason and raw."""
    return pl.DataFrame([{"file": source.name, **b} for b in bad], schema=MALFORMED)


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _text(value: Any, list_separator: str) -> str | None:
    """A JSON value as a CSV file would hold it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, list):
        return list_separator.join(_text(v, list_separator) or "" for v in value)
    return orjson.dumps(value).decode()


def _parquet(source: Source, data: bytes, list_separator: str) -> Raw:
    try:
        frame = pl.read_parquet(io.BytesIO(data))
        frame = frame.rename({name: own(name) for name in frame.columns})
        frame = frame.with_columns(
            cs.boolean().cast(pl.Int8),
            cs.list().cast(pl.List(pl.String)).list.join(list_separator, ignore_nulls=True),
            (cs.temporal() - cs.time() - cs.duration()).cast(pl.Datetime("us")).dt.epoch("us")
            / 1e6,
        )
        frame = frame.with_columns(_plain(name) for name in frame.select(cs.float()).columns)
        frame = frame.select(pl.all().cast(pl.String))
    except pl.exceptions.PolarsError as error:
        raise ContractError(f"{source.url} is no Parquet table of plain values: {error}") from error
    line = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("line")
    frame = frame.with_columns(line, pl.lit(source.name).alias("file"))
    return Raw(frame, pl.DataFrame(schema=MALFORMED))


def _plain(name: str) -> pl.Expr:
    """Whole floats without a point, as a file has them that knew no missing values."""
    value = pl.col(name)
    whole = (value == value.floor()) & (value.abs() < 2**53)
    number = value.cast(pl.Int64, strict=False).cast(pl.String)
    return pl.when(whole).then(number).otherwise(value.cast(pl.String)).alias(name)
