"""Raw rows to cases: what each column holds, which rows break it, and what may not be known."""

from __future__ import annotations

import polars as pl

from ray_jobs.data.clean import Cleaned
from ray_jobs.data.moments import LATEST, seconds
from ray_jobs.data.names import shown
from ray_jobs.data.numbers import with_points
from ray_jobs.errors import ContractError
from ray_jobs.families.tabular.kinds import kind_of, label_kind
from ray_jobs.families.tabular.leaks import refuse_leaks
from ray_jobs.families.tabular.table import OURS, PREFIX, Columns, features

LABELS = ("label", "target", "outcome", "class", "passed", "y")
WORDS = {"binary": "one of two outcomes", "classes": "one of several classes", "number": "a number"}
RARE = 10  # rows of a class; with fewer nobody can tell whether it was learnt


def clean(rows: pl.DataFrame, timed: bool, columns: Columns) -> Cleaned:
    """Make the clean table; the rows that break a rule come back beside it.

    Rows have no identity of their own, so none counts as delivered again.
    Raises ContractError where the label is none, or a column tells it.
    """
    label = _label(rows, columns)
    own = [PREFIX + name for name in features(rows)]
    rows = rows.with_columns(pl.col(own).map_batches(with_points, return_dtype=pl.String))
    kind = label_kind(rows[PREFIX + label], columns.kind, label)
    kinds = {n: kind_of(rows[PREFIX + n]) for n in features(rows) if n != label}
    numbers = [n for n, k in kinds.items() if k == "number"]
    rules = _rules(label, kind, numbers, columns.zone if timed else "")
    broken = pl.coalesce(pl.when(rule).then(pl.lit(name)) for name, rule in rules.items())
    rows = rows.with_columns(broken.alias("reason"))
    bad, good = (rows.filter(pl.col("reason").is_null() == ok) for ok in (False, True))
    kept = [n for n, k in kinds.items() if k in {"number", "category"}]
    table = _typed(good, label, kind, {n: kinds[n] for n in kept}, columns.zone)
    _refuse_nothing(table, label, kinds)
    refuse_leaks(table, label, columns.allowed)
    notes = (f"{label} is predicted from {len(kept)} columns ({WORDS[kind]})", *_left_out(kinds))
    return Cleaned(table, bad.select("position", "reason"), merged=0, repeats=0, notes=notes)


def _label(rows: pl.DataFrame, columns: Columns) -> str:
    there = features(rows)
    found = columns.label or next((n for n in there if n.lower() in LABELS), "")
    if not found:
        raise ContractError(
            f"no column is called {', '.join(LABELS)}; say which one is to be predicted with "
            f"--set columns.label=NAME, one of {shown(there)}"
        )
    if found not in there:
        raise ContractError(
            f"columns.label={found}: that column is already the group, the time, or ignored"
        )
    return found


def _rules(label: str, kind: str, numbers: list[str], zone: str) -> dict[str, pl.Expr]:
    """Reason to what breaks it, the first that applies first; over rows that are text.

    Times are looked at where they have a zone.
    """
    text = pl.col(PREFIX + label)
    rules = {"missing_group": pl.col("group").is_null(), "missing_label": text.is_null()}
    if kind == "number":
        rules["invalid_label"] = ~_finite(text)
    else:
        rules["rare_class"] = pl.len().over(text) < RARE
    if zone:
        time = seconds(pl.col("time"), zone)
        rules["missing_time"] = pl.col("time").is_null()
        rules["invalid_time"] = ~time.is_between(0, LATEST).fill_null(False)
    for name in numbers:
        value = pl.col(PREFIX + name)
        rules[f"invalid_{name}"] = value.is_not_null() & ~_finite(value)
    return rules


def _finite(text: pl.Expr) -> pl.Expr:
    return text.cast(pl.Float64, strict=False).is_finite().fill_null(False)


def _typed(
    rows: pl.DataFrame, label: str, kind: str, kinds: dict[str, str], zone: str
) -> pl.DataFrame:
    """The clean table: columns of ours, then the features in their types."""
    number = pl.Float64()
    text = pl.col(PREFIX + label)
    ours = rows.with_columns(
        (text.cast(number) if kind == "number" else text).alias("label"),
        seconds(pl.col("time"), zone).alias("time"),
        pl.lit(True).alias("scored"),
    )
    types = [
        pl.col(PREFIX + n).cast(number) if k == "number" else pl.col(PREFIX + n)
        for n, k in kinds.items()
    ]
    return ours.select(*OURS.names(), *types)


def _refuse_nothing(table: pl.DataFrame, label: str, kinds: dict[str, str]) -> None:
    if not features(table):
        raise ContractError(
            f"no column is left to predict {label} from ({'; '.join(_left_out(kinds))}); "
            "give a table with more"
        )
    if len(table) and table["label"].n_unique() < 2:
        raise ContractError(
            f"of the label {label} only {table['label'][0]!r} has {RARE} rows or more; expected "
            "two values at least. Give more rows"
        )


def _left_out(kinds: dict[str, str]) -> list[str]:
    """A note per reason why columns are left out."""
    reasons = sorted({k for k in kinds.values() if k not in {"number", "category"}})
    return [
        f"left out as {reason}: {', '.join(n for n, k in kinds.items() if k == reason)}"
        for reason in reasons
    ]
