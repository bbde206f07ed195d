"""What is counted of a part of a clean table, and added up over parts.

Never a row, and never the id of a group: numbers, and how often values stand there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ray_jobs.data.spread import Numbers

OURS = ("bucket", "position", "split")  # columns of the machinery
TIME = "time"
MOST_VALUES = 100_000  # of a column that are counted one by one
MANY_TEXTS = 50  # values of a text column, from which it may be names or free text
OWN = 0.5  # share of rows with a value of their own, from which it is
GRADE = "@grade"  # the label as a number


@dataclass(frozen=True)
class Plan:
    """What is counted, and how."""

    group: str
    label: str
    graded: bool  # the label is a number, or a truth
    kinds: dict[str, str]  # by column: number, time, category, set (of names) or text

    @classmethod
    def of(cls, table: pl.DataFrame, *, group: str, label: str, keys: Sequence[str]) -> Plan:
        """By the rows of one part: of a group it holds all or none, so it is like the others."""
        names = [name for name in table.columns if name not in {*OURS, group}]
        kinds = {name: _kind(table[name], named=name in {label, *keys}) for name in names}
        dtype = table.schema[label]
        return cls(group, label, dtype.is_numeric() or dtype == pl.Boolean, kinds)


@dataclass(frozen=True)
class Counted:
    """How often values stand there."""

    values: pl.DataFrame  # value, rows, label (summed); the most common first
    others: int = 0  # rows of values beyond those

    @classmethod
    def of(cls, values: pl.DataFrame, others: int = 0) -> Counted:
        ordered = values.sort(["rows", "value"], descending=[True, False])
        return cls(ordered.head(MOST_VALUES), others + int(ordered["rows"][MOST_VALUES:].sum()))

    @classmethod
    def together(cls, parts: Sequence[Counted]) -> Counted:
        """Of all the rows of some parts."""
        every = pl.concat(part.values for part in parts)
        summed = every.group_by("value").agg(pl.col("rows").sum(), pl.col("label").sum())
        return cls.of(summed, sum(part.others for part in parts))


@dataclass(frozen=True)
class Tally:
    """What was counted of some parts."""

    rows: int
    groups: int
    missing: dict[str, int]  # by column; of sets the empty ones too
    numbers: dict[str, Numbers | None]  # of texts: their characters
    counted: dict[str, Counted]  # values of categories, and the names in sets
    per_group: Numbers | None  # rows
    grades: Numbers | None  # mean label of each group

    @classmethod
    def of(cls, table: pl.DataFrame, plan: Plan) -> Tally:
        """Of one part."""
        grade = pl.col(plan.label).cast(pl.Float64) if plan.graded else pl.lit(None, pl.Float64)
        table = table.with_columns(grade.alias(GRADE))
        known = {name: _known(table, name, kind) for name, kind in plan.kinds.items()}
        groups = table.group_by(plan.group).agg(pl.len(), pl.col(GRADE).mean())
        sorts = plan.kinds.items()
        return cls(
            rows=len(table),
            groups=len(groups),
            missing={name: len(table) - len(there) for name, there in known.items()},
            numbers={n: _numbers(known[n], k) for n, k in sorts if k not in {"category", "set"}},
            counted={n: _counted(known[n], k) for n, k in sorts if k in {"category", "set"}},
            per_group=Numbers.of(groups["len"]),
            grades=Numbers.of(groups[GRADE].drop_nulls()),
        )

    @classmethod
    def together(cls, parts: Sequence[Tally]) -> Tally:
        """Of all the rows of some parts."""
        first = parts[0]
        return cls(
            rows=sum(part.rows for part in parts),
            groups=sum(part.groups for part in parts),
            missing={name: sum(part.missing[name] for part in parts) for name in first.missing},
            numbers={n: Numbers.together([p.numbers[n] for p in parts]) for n in first.numbers},
            counted={n: Counted.together([p.counted[n] for p in parts]) for n in first.counted},
            per_group=Numbers.together([part.per_group for part in parts]),
            grades=Numbers.together([part.grades for part in parts]),
        )


def _kind(values: pl.Series, *, named: bool) -> str:
    if values.dtype.is_numeric():
        return "time" if values.name == TIME else "number"
    if isinstance(values.dtype, pl.List):
        return "set"
    distinct, known = values.n_unique(), len(values) - values.null_count()
    if named or distinct <= MANY_TEXTS or distinct <= OWN * known:
        return "category"
    return "text"


def _known(table: pl.DataFrame, name: str, kind: str) -> pl.DataFrame:
    """Value and grade of the rows in which something stands."""
    value = pl.col("value")
    there = value.is_not_null()
    if kind == "set":
        there = value.list.len() > 0
    elif kind in {"number", "time"}:
        there = value.cast(pl.Float64).is_finite()
    column = table.select(pl.col(name).alias("value"), GRADE)
    stands = column.select(there.fill_null(False)).to_series()
    return column if stands.all() else column.filter(stands)  # lists are slow to copy


def _numbers(known: pl.DataFrame, kind: str) -> Numbers | None:
    values = known["value"]
    return Numbers.of(values.str.len_chars() if kind == "text" else values)


def _counted(known: pl.DataFrame, kind: str) -> Counted:
    if kind == "set":
        known = known.explode("value").drop_nulls("value")
    values = known.group_by(pl.col("value").cast(pl.String)).agg(
        pl.len().cast(pl.Int64).alias("rows"), pl.col(GRADE).sum().alias("label")
    )
    return Counted.of(values)
