"""What a clean table holds, in numbers: its columns, and how rows spread over learners and items.

Taken part after part in bounded memory. No id of a group is ever kept, nor what
stands in free text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from ray_jobs.data.spread import Numbers
from ray_jobs.data.tables import each, parts, scan
from ray_jobs.data.tally import OURS, Counted, Plan, Tally

AT_A_TIME = 8  # parts, before they are added up


@dataclass(frozen=True)
class Values:
    """How many rows hold each value, the most common first."""

    rows: dict[str, int]
    others: int  # rows of values that are too many to count one by one

    @property
    def total(self) -> int:
        return sum(self.rows.values()) + self.others


@dataclass(frozen=True)
class Column:
    """A column of a clean table."""

    kind: str  # number, time, category, set (of names) or text
    missing: int  # rows; of sets the empty ones too
    numbers: Numbers | None  # of a text: its characters; None: all are missing
    values: Values | None  # of a category; of a set its names

    @classmethod
    def loads(cls, value: Mapping[str, Any]) -> Column:
        numbers, values = value["numbers"], value["values"]
        typed = {
            "numbers": Numbers.loads(numbers) if numbers else None,
            "values": Values(**values) if values else None,
        }
        return cls(**{**value, **typed})


@dataclass(frozen=True)
class Key:
    """How rows spread over learners, say, or over items."""

    count: int  # different ones
    rows: Numbers  # of each
    label: Numbers | None  # its mean over the rows of each; None: it is no number
    others: int  # rows of those that are too many to count one by one

    @classmethod
    def loads(cls, value: Mapping[str, Any]) -> Key:
        label = value["label"]
        typed = {
            "rows": Numbers.loads(value["rows"]),
            "label": Numbers.loads(label) if label else None,
        }
        return cls(**{**value, **typed})


@dataclass(frozen=True)
class Profile:
    """A clean table in numbers."""

    rows: int
    groups: int
    group: str  # the column that tells them
    label: str
    columns: dict[str, Column]
    keys: dict[str, Key]  # by column; a group that is a row is none

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def loads(cls, value: Mapping[str, Any]) -> Profile:
        columns = {name: Column.loads(column) for name, column in value["columns"].items()}
        keys = {name: Key.loads(key) for name, key in value["keys"].items()}
        return cls(**{**value, "columns": columns, "keys": keys})


# What is said of people to tell figures apart by, of whom a report on data tells nothing.
ASIDE = ("about",)


def profile(uri: str, *, group: str, label: str, keys: Sequence[str] = ()) -> Profile:
    """The profile of a clean table; of a group, one part holds all rows or none.

    `keys` are the columns over which rows spread, besides the group.
    """
    files = parts(uri)
    first = next((t for t in map(_read, files) if len(t)), _read(files[0]))
    plan = Plan.of(first, group=group, label=label, keys=keys)
    found: list[Tally] = []
    for begin in range(0, len(files), AT_A_TIME):
        some = files[begin : begin + AT_A_TIME]
        found += each(lambda part: Tally.of(_read(part), plan), some)
        found = [Tally.together(found)]
    (tally,) = found
    spread = {group: _over_groups(tally)} if tally.groups < tally.rows else {}
    spread |= {key: _over(tally.counted[key], plan) for key in keys}
    return Profile(
        rows=tally.rows,
        groups=tally.groups,
        group=group,
        label=label,
        columns={name: _column(name, kind, tally) for name, kind in plan.kinds.items()},
        keys={name: key for name, key in spread.items() if key},
    )


def _read(part: str) -> pl.DataFrame:
    return scan(part).select(pl.exclude(*OURS, *ASIDE)).collect()


def _column(name: str, kind: str, tally: Tally) -> Column:
    counted = tally.counted.get(name)
    rows = dict(counted.values.select("value", "rows").iter_rows()) if counted else {}
    return Column(
        kind=kind,
        missing=tally.missing[name],
        numbers=tally.numbers.get(name),
        values=Values(rows, counted.others) if counted else None,
    )


def _over_groups(tally: Tally) -> Key | None:
    if tally.per_group is None:
        return None
    return Key(tally.groups, tally.per_group, tally.grades, others=0)


def _over(counted: Counted, plan: Plan) -> Key | None:
    rows = Numbers.of(counted.values["rows"])
    if rows is None:
        return None
    means = counted.values["label"] / counted.values["rows"]
    label = Numbers.of(means) if plan.graded else None
    return Key(rows.rows, rows, label, counted.others)
