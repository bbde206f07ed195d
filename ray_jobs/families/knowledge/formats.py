"""Readers of the logs people have: tables, and the line forms of public preparations.

The line forms are those of DKT and DKVMN (count / skills / answers) and of AKT
(index,user / [problems /] skills / answers): three or four lines per learner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import polars as pl

from ray_jobs.data import raw, readers
from ray_jobs.data.blocks import UNREADABLE, UNREADABLE_BYTES, blocks
from ray_jobs.data.names import shown
from ray_jobs.data.raw import PLACES, Raw
from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge import xapi
from ray_jobs.families.knowledge.table import EXTRA, Columns

NAMES = {
    "learner": ("learner", "user_id", "student_id", "user", "student", "anon_student_id"),
    "item": ("item", "item_id", "problem_id", "question_id", "exercise", "problem", "question"),
    "skills": ("skills", "skill", "skill_id", "skill_name", "concept", "kc"),
    "correct": ("correct", "is_correct", "outcome", "score", "answered_correctly"),
    "time": ("time", "timestamp", "start_time", "unix_time", "date"),
    "response_time": (),  # where it is named, since files of a delivery must have like columns
}
NEEDED = ("learner", "correct")
RAW = ("learner", "item", "skills", "correct", "time")
MILLISECONDS = re.compile(r"(?<![a-z])ms(?![a-z])|Ms$", re.ASCII)
HEAD = 1200  # lines that tell how many make up a learner


def read(unit: Sequence[Source], columns: Columns) -> Iterator[Raw]:
    """Rows of a log with the columns `RAW` as text, and those of `EXTRA` that are named.

    Raises ContractError when it is none.
    """
    (source,) = unit
    extra = [name for name in EXTRA if getattr(columns, name)]
    if lines := _is_line_form(source):
        _refuse(source, "lines of answers", columns, extra)
    for part in _line_form(source) if lines else _table(source, columns):
        yield replace(part, rows=part.rows.select(*RAW, *extra, *PLACES))


def _refuse(source: Source, what: str, columns: Columns, names: Sequence[str]) -> None:
    """Columns of tables that something else was asked for."""
    for name in names:
        raise ContractError(
            f"{source.url} holds {what}, which have no column {getattr(columns, name)!r} "
            f"(columns.{name}); leave it out"
        )


def _table(source: Source, columns: Columns) -> Iterator[Raw]:
    tables = readers.batches(source, list_separator=columns.skill_separator)
    first = next(tables)
    whole = chain([first], tables)
    have = first.rows.columns  # as every batch has them
    if xapi.recognised(have):
        _refuse(source, "xAPI statements", columns, ["about"] if columns.about else [])
        yield from xapi.answers(whole, columns.skill_separator)
        return
    names = _mapping(have, columns, source)
    missing = [pl.lit(None, pl.String).alias(c) for c in RAW if c not in names]
    # A number alone does not tell what it counts.
    unit = " ms" if _in_milliseconds(names.get("response_time", "")) else ""
    told = _told(have, columns, source, names["learner"])
    for table in whole:
        renamed = raw.rename(table, names)
        rows = renamed.rows.with_columns(missing)
        if unit:
            rows = rows.with_columns(pl.col("response_time") + unit)
        if told:
            rows = rows.with_columns(table.rows.select(about=_as_json(told))["about"])
        if "item" not in names:  # a log of skills alone: practising the skill is the item
            rows = rows.with_columns(pl.col("skills").alias("item"))
        yield replace(renamed, rows=rows)


def _mapping(have: Sequence[str], columns: Columns, source: Source) -> dict[str, str]:
    have = [name for name in have if name not in {"file", "line"}]
    lower = {name.lower(): name for name in reversed(have)}
    found: dict[str, str] = {}
    for name, usual in NAMES.items():
        asked = getattr(columns, name)
        if asked and asked not in have:
            raise ContractError(
                f"{source.url}: no column {asked!r} (columns.{name}); there are {shown(have)}. "
                f"Name one with --set columns.{name}=NAME"
            )
        match = asked or next((lower[u] for u in usual if u in lower), None)
        if match:
            found[name] = match
    lacking = [n for n in NEEDED if n not in found]
    if "item" not in found and "skills" not in found:
        lacking.append("item")
    if lacking:
        raise ContractError(
            f"{source.url}: no column for {', '.join(lacking)} among {shown(have)}; "
            f"name it with --set columns.{lacking[0]}=NAME (usual: {', '.join(NAMES[lacking[0]])})"
        )
    return found


def _in_milliseconds(name: str) -> bool:
    return MILLISECONDS.search(name) is not None or MILLISECONDS.search(name.lower()) is not None


def _told(have: Sequence[str], columns: Columns, source: Source, learner: str) -> list[str]:
    """The columns that `about` names, as the log has them."""
    if learner in columns.told:
        raise ContractError(
            f"{source.url}: columns.about names {learner!r}, the learners themselves, who would "
            "then stand beside their pseudonyms; leave it out"
        )
    unknown = [name for name in columns.told if raw.own(name) not in have]
    if unknown:
        raise ContractError(
            f"{source.url}: no column {unknown[0]!r} (columns.about); there are "
            f"{shown([name for name in have if name not in PLACES])}. Name some of them, or none"
        )
    return [raw.own(name) for name in columns.told]


def _as_json(names: Sequence[str]) -> pl.Expr:
    """These columns as a JSON object of texts; null where nothing is said."""
    said = pl.any_horizontal(pl.col(names).is_not_null())
    return pl.when(said).then(pl.struct(names).struct.json_encode())


def _bare(line: str) -> str:
    """A line of values between commas, without the comma that some end in."""
    return line.strip().rstrip(",")


def _tokens(line: str) -> list[str]:
    return [t.strip() for t in _bare(line).split(",")]


def _is_line_form(source: Source) -> bool:
    """Three lines of integers, of which the first is one or two numbers, start a line form."""
    if source.kind not in {".csv", ".txt", ".tsv"}:
        return False
    lines = next(blocks(source)).text.split("\n", 3)[:3]
    if len(lines) < 3:
        return False
    heads = [_tokens(line) for line in lines]
    numeric = all(t.isdigit() for tokens in heads for t in tokens)
    return numeric and len(heads[0]) <= 2 and len(heads[1]) == len(heads[2])


def _line_form(source: Source) -> Iterator[Raw]:
    lines = "".join(block.text for block in blocks(source)).rstrip().split("\n")
    period = max((3, 4), key=lambda p: (_agreement(lines[:HEAD], p), _outcomes(lines[:HEAD], p)))
    rows: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    nameless = False
    for start in range(0, len(lines), period):
        group = lines[start : start + period]
        text = "\n".join(group)
        if not _consistent(group, period) or UNREADABLE in text:
            reason = UNREADABLE_BYTES if UNREADABLE in text else "malformed_line"
            bad.append({"line": start + 1, "reason": reason, "raw": text})
            continue
        rows.append(_answers(group, start, source))
        nameless |= len(_tokens(group[0])) == 1
    if not rows:
        raise ContractError(f"{source.url}: no group of {period} lines holds answers")
    lists = ("item", "skills", "correct")
    frame = pl.DataFrame(rows).with_columns(pl.col(lists).str.split(",")).explode(lists)
    frame = frame.with_columns(
        pl.lit(None, pl.String).alias("time"),
        pl.lit(source.name).alias("file"),
        pl.col("line").cast(pl.Int64),
    )
    notes = (raw.BY_PLACE,) if nameless else ()
    yield Raw(raw.tidy(frame), raw.malformed(source, bad), notes)


def _consistent(group: Sequence[str], period: int) -> bool:
    if len(group) != period:
        return False
    head = _tokens(group[0])
    lengths = {_bare(line).count(",") + 1 for line in group[1:]}
    counted = len(head) == 2 or (head[0].isdigit() and int(head[0]) in lengths)
    return len(lengths) == 1 and len(head) <= 2 and counted


def _agreement(lines: Sequence[str], period: int) -> float:
    groups = [lines[i : i + period] for i in range(0, len(lines), period)]
    return sum(_consistent(g, period) for g in groups) / len(groups)


def _outcomes(lines: Sequence[str], period: int) -> float:
    """Share of groups that end with a line of zeros and ones."""
    last = [_tokens(line) for line in lines[period - 1 :: period]]
    return sum(set(tokens) <= {"0", "1"} for tokens in last) / max(len(last), 1)


def _answers(group: Sequence[str], start: int, source: Source) -> dict[str, Any]:
    """One learner's answers, still as lines."""
    head, *rest = _tokens(group[0]), *(_bare(line) for line in group[1:])
    # A count names nobody; the place in the file does, and files of one set differ in name.
    learner = head[1] if len(head) == 2 else f"{source.stem}:{start + 1}"
    skills, correct = rest[-2:]
    items = rest[0] if len(rest) == 3 else skills
    line = start + len(group)  # the last, which holds the outcomes
    return {"learner": learner, "item": items, "skills": skills, "correct": correct, "line": line}
