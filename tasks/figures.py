"""Figures with their bounds as flat names and tables, for those who sort and filter them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ray_jobs.evaluation import Evaluation
from ray_jobs.intervals import Interval


def slice_table(evaluation: Evaluation) -> pl.DataFrame:
    """The slices as one flat table: a row per part, figures with their bounds."""
    rows = []
    for column, parts in evaluation.slices.items():
        for value, part in parts.items():
            row: dict[str, Any] = {"slice": column, "value": value, "rows": part.rows}
            row |= {"groups": part.groups, "rate": part.rate}
            rows.append(row | named_figures(part.metrics))
    table = pl.DataFrame(rows, infer_schema_length=None).fill_nan(None)
    return table.with_columns(pl.col(pl.Float64).round(5))


def named_figures(intervals: Mapping[str, Interval], prefix: str = "") -> dict[str, float]:
    """Figures with their bounds by flat names: `auc`, `auc_low`, `auc_high`."""
    named: dict[str, float] = {}
    for name, figure in intervals.items():
        bounds = {"": figure.value, "_low": figure.low, "_high": figure.high}
        named |= {f"{prefix}{name}{end}": v for end, v in bounds.items()}
    return named
