"""Lines with separators to rows: what has as many fields as the header has names is one.

Blocks without quotes are measured in bytes and parsed at once; where quotes
stand, records may run over lines, and an unbalanced one costs its own line alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ray_jobs.data.blocks import UNREADABLE, UNREADABLE_BYTES, Block
from ray_jobs.data.names import shown
from ray_jobs.data.raw import Raw, malformed, own, placed, tidy
from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError

SEPARATORS = "\t,;|"
ROW = "row"  # names the number that a table's rows begin with where its header does not
LONGEST_RECORD = 100  # lines that one record with quoted line breaks may take
HEAD = 1000  # lines that tell whether rows begin with a number
RECORD = pl.Schema({"line": pl.Int64(), "raw": pl.String(), "fields": pl.List(pl.String())})
MARK = UNREADABLE.encode()


@dataclass(frozen=True)
class Layout:
    """How the lines of a file are made, as its first block tells."""

    source: Source
    header: str
    separator: str
    names: tuple[str, ...]


def read(source: Source, parts: Iterable[Block]) -> Iterator[Raw]:
    """Rows of a file with a header, a batch for each block.

    Raises ContractError for a header that names a column twice.
    """
    parts = iter(parts)
    first = next(parts)
    header, _, body = first.data.partition(b"\n")
    block = replace(first, data=body, line=2)
    layout = _layout(source, header.decode())
    notes: list[str] = []
    if _numbered(block, layout):
        layout = replace(layout, names=(ROW, *layout.names))
        notes.append(f"{source.name}: its rows begin with a number that the header does not name")
    raw, rest = _rows(block, layout)
    yield replace(raw, notes=tuple(notes))
    for part in parts:
        # A record that ran over the end of its block goes on in the next.
        lines = rest.count(b"\n")
        raw, rest = _rows(replace(part, data=rest + part.data, line=part.line - lines), layout)
        yield raw


def _layout(source: Source, header: str) -> Layout:
    separator = max(SEPARATORS, key=header.count)
    names = tuple(own(n) for n in next(csv.reader([header], delimiter=separator)))
    if len(set(names)) < len(names):
        raise ContractError(
            f"{source.url}, line 1: a column stands twice among {shown(names)}; give each its name"
        )
    return Layout(source, header, separator, names)


def _numbered(block: Block, layout: Layout) -> bool:
    """Whether every row has one field more than the header, a number: as R writes tables."""
    whole = len(layout.names) + 1
    lines = [line for line in block.text.split("\n", HEAD)[:HEAD] if line.strip()]
    long = [line for line in lines if line.count(layout.separator) >= whole - 1]
    if len(long) <= len(lines) / 2:
        return False
    records = [fields for line in long if (fields := _fields(line, layout.separator)) is not None]
    records = [fields for fields in records if len(fields) == whole]
    return len(records) > len(lines) / 2 and all(f[0].isdecimal() for f in records)


def _rows(block: Block, layout: Layout) -> tuple[Raw, bytes]:
    """The rows of a block, and the start of a record that its end cut off."""
    if b'"' in block.data:
        return _quoted(block, layout)
    return _plain(block, layout), b""


def _plain(block: Block, layout: Layout) -> Raw:
    """Rows of lines without quotes: their separators are counted, and the good ones parsed."""
    data = block.data if block.data.endswith(b"\n") or not block.data else block.data + b"\n"
    octets = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero((octets == ord("\n")) | (octets == ord(layout.separator)))
    feeds = np.flatnonzero(octets[marks] == ord("\n"))
    ends = marks[feeds]  # (N,) int64, of the line feeds
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    counts = np.diff(feeds, prepend=-1) - 1  # (N,) int64, separators of each line
    bad = (counts != len(layout.names) - 1) | (ends == starts)
    if len(layout.names) == 1:
        bad[:] = True  # no separator tells a blank line from a row
    bad[_lines_with(MARK, data, ends)] = True
    bad[_lines_with(layout.header.encode(), data, ends)] = True
    faults = []
    for i in np.flatnonzero(bad).tolist():
        text = data[starts[i] : ends[i]].decode()
        reason = _fault(text, int(counts[i]) + 1, layout)
        bad[i] = bool(reason) or _blank(text, layout.separator)
        if reason:
            faults.append({"line": block.line + i, "reason": reason, "raw": text})
    rows = _parsed(_without(data, bad, starts, ends), layout)
    line = pl.Series("line", block.line + np.flatnonzero(~bad), dtype=pl.Int64)
    return Raw(placed(rows, layout.source, line), malformed(layout.source, faults))


def _lines_with(text: bytes, data: bytes, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The lines that hold a text, which is rare."""
    at = data.find(text)
    places = []
    while text and at >= 0:
        places.append(at)
        at = data.find(text, at + len(text))
    return np.searchsorted(ends, np.array(places, np.int64))


def _fault(text: str, width: int, layout: Layout) -> str:
    """Why a record is no row; nothing where it is one, or blank."""
    if _blank(text, layout.separator):
        return ""
    if text == layout.header:  # logs were laid end to end
        return "repeated_header"
    if width != len(layout.names):
        return "malformed_line"
    return UNREADABLE_BYTES if UNREADABLE in text else ""


def _blank(text: str, separator: str) -> bool:
    """Whether a line holds nothing; separators, be they tabs, part values that are missing."""
    return not text.strip() and separator not in text


def _without(
    data: bytes, bad: NDArray[np.bool_], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> bytes:
    """The lines that are not bad."""
    if not bad.any():
        return data
    edges = np.flatnonzero(np.diff(np.concatenate([[True], bad, [True]]).astype(np.int8)))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)  # [from, to) of good ones
    return b"".join(data[starts[first] : ends[beyond - 1] + 1] for first, beyond in runs)


def _parsed(data: bytes, layout: Layout) -> pl.DataFrame:
    """Lines of as many fields as there are names, each of them text."""
    if not data:
        return pl.DataFrame(schema=dict.fromkeys(layout.names, pl.String))
    rows = pl.read_csv(
        data,
        has_header=False,
        new_columns=layout.names,
        separator=layout.separator,
        quote_char=None,
        infer_schema=False,
    )
    # Looking for octets that may be spaces is quicker by far than looking at every text.
    ends = rows.height * (len(layout.names) if layout.separator == "\t" else 1)
    low = int(np.count_nonzero(np.frombuffer(data, np.uint8) <= ord(" ")))
    plain = data.isascii() and low == ends
    return rows if plain else tidy(rows)


def _quoted(block: Block, layout: Layout) -> tuple[Raw, bytes]:
    lines = block.text.split("\n")
    records, taken = _records(lines, block, layout.separator)
    frame = pl.DataFrame(records, schema=RECORD, orient="row")
    reasons = [_fault(raw, len(fields or ()), layout) for _, raw, fields in records]
    frame = frame.with_columns(pl.Series("reason", reasons, pl.String))
    good = frame.filter(pl.col("reason") == "")
    fields = [pl.col("fields").list.get(i).alias(name) for i, name in enumerate(layout.names)]
    bad = frame.filter(pl.col("reason") != "").select("line", "reason", "raw").to_dicts()
    rows = placed(tidy(good.select(fields)), layout.source, good["line"])
    return Raw(rows, malformed(layout.source, bad)), "\n".join(lines[taken:]).encode()


def _records(
    lines: Sequence[str], block: Block, separator: str
) -> tuple[list[tuple[int, str, list[str] | None]], int]:
    """Each record's line, raw text and fields, and how many lines of the block they take.

    Blank lines are none. Fields are None where quotes are unbalanced: that
    line alone is lost, not everything up to the next quote.
    """
    found, at = [], 0
    while at < len(lines):
        taken, fields = _record(lines[at : at + LONGEST_RECORD], separator)
        if fields is None and not block.last and at + LONGEST_RECORD >= len(lines):
            break
        raw = "\n".join(lines[at : at + taken])
        if not _blank(raw, separator):
            found.append((block.line + at, raw, fields))
        at += taken
    return found, at


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


def _fields(line: str, separator: str) -> list[str] | None:
    return _record([line], separator)[1]
