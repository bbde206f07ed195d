"""Files of any form to raw rows, a batch at a time: CSV, TSV, JSON lines, Parquet.

A batch is a few hundred thousand rows, whatever the size of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import orjson
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.data import delimited
from ray_jobs.data.blocks import BLOCK_BYTES, UNREADABLE, UNREADABLE_BYTES, Block, blocks
from ray_jobs.data.raw import MALFORMED, Raw, malformed, own, placed, tidy, together
from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError

BATCH_ROWS = 1 << 18  # of a Parquet file


def batches(
    source: Source, *, list_separator: str = ";", block_bytes: int = BLOCK_BYTES
) -> Iterator[Raw]:
    """Read a table in CSV, TSV, JSON lines or Parquet; raises ContractError when it is none.

    Lists, as JSON and Parquet have them, become text with a separator between.
    """
    if source.kind == ".parquet":
        yield from _parquet(source, list_separator)
        return
    parts = blocks(source, block_bytes)
    first = next(parts)
    while not first.last and not first.data.strip():
        first = next(parts)
    if not first.data.strip():
        raise ContractError(f"{source.url} is empty; expected a header and rows")
    whole = chain([first], parts)
    if source.kind in {".jsonl", ".ndjson", ".json"}:
        yield from _json_lines(source, whole, list_separator)
    else:
        yield from delimited.read(source, whole)


def read(source: Source, *, list_separator: str = ";") -> Raw:
    """A whole file at once."""
    return together(batches(source, list_separator=list_separator))


def _json_lines(source: Source, parts: Iterable[Block], list_separator: str) -> Iterator[Raw]:
    """Each block with the columns of all, so that where a file is cut changes none."""
    names: dict[str, None] = {}
    for part in blocks(source):
        for line in part.text.split("\n"):
            if (value := _json_object(line)) is not None:
                names |= dict.fromkeys(map(own, value))
    if not names:
        raise ContractError(f"{source.url}: no line is a JSON object; expected one object a line")
    for part in parts:
        yield _json_block(source, part, list_separator, sorted(names))


def _json_block(source: Source, part: Block, list_separator: str, names: Sequence[str]) -> Raw:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    bad: list[dict[str, Any]] = []
    for number, line in enumerate(part.text.split("\n"), start=part.line):
        if not line.strip():
            continue
        row = _json_row(line, list_separator)
        if UNREADABLE in line:
            bad.append({"line": number, "reason": UNREADABLE_BYTES, "raw": line})
        elif row is None:
            bad.append({"line": number, "reason": "malformed_line", "raw": line})
        else:
            rows.append(row)
            lines.append(number)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String))
    line_numbers = pl.Series("line", lines, dtype=pl.Int64)
    return Raw(placed(tidy(frame), source, line_numbers), malformed(source, bad))


def _json_row(line: str, list_separator: str) -> dict[str, str | None] | None:
    value = _json_object(line)
    try:
        return value and {own(k): _text(v, list_separator) for k, v in value.items()}
    except (RecursionError, TypeError):  # nested deeper than can be written again
        return None


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


def _parquet(source: Source, list_separator: str) -> Iterator[Raw]:
    try:
        with source.seekable() as file:
            table = pq.ParquetFile(file)
            empty = pl.DataFrame(table.schema_arrow.empty_table())
            yield _typed(source, empty, 1, list_separator)
            line = 1
            for batch in table.iter_batches(BATCH_ROWS):
                frame = pl.DataFrame(pa.Table.from_batches([batch]))
                yield _typed(source, frame, line, list_separator)
                line += len(frame)
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise ContractError(f"{source.url} is no Parquet table of plain values: {error}") from error


def _typed(source: Source, frame: pl.DataFrame, line: int, list_separator: str) -> Raw:
    """Rows of typed values as the text that a CSV file would hold."""
    frame = frame.rename({name: own(name) for name in frame.columns})
    frame = frame.with_columns(
        cs.boolean().cast(pl.Int8),
        cs.list().cast(pl.List(pl.String)).list.join(list_separator, ignore_nulls=True),
        cs.date().dt.to_string("%Y-%m-%d"),
        cs.datetime(time_zone=None).dt.to_string("%Y-%m-%dT%H:%M:%S%.6f"),
        cs.datetime(time_zone="*").dt.epoch("us") / 1e6,
    )
    frame = frame.with_columns(_plain(name) for name in frame.select(cs.float()).columns)
    frame = frame.select(pl.all().cast(pl.String))
    lines = pl.int_range(line, line + len(frame), dtype=pl.Int64, eager=True)
    return Raw(placed(tidy(frame), source, lines), pl.DataFrame(schema=MALFORMED))


def _plain(name: str) -> pl.Expr:
    """Whole floats without a point, as a file has them that knew no missing values."""
    value = pl.col(name)
    whole = (value == value.floor()) & (value.abs() < 2**53)
    number = value.cast(pl.Int64, strict=False).cast(pl.String)
    return pl.when(whole).then(number).otherwise(value.cast(pl.String)).alias(name)
