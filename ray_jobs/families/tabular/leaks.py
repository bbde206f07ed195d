"""Columns that tell the label: known only afterwards, they make figures that nobody can keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from ray_jobs.errors import ContractError
from ray_jobs.families.tabular.table import PREFIX, features
from ray_jobs.metrics import binary
from ray_jobs.target import Array

TELLS = 0.999  # share of rows whose label a column gives away
LEAST = 50  # rows; fewer may agree by chance
COVERS = 0.05  # share of the rows whose label is given away
CHANCE = 1e-6  # that so many rows of one kind agree by luck
BINS = 50  # of a number with more values


def refuse_leaks(table: pl.DataFrame, label: str, allowed: Sequence[str]) -> None:
    """Raise ContractError that names each column which tells the label, and how."""
    found = {name: how for name in features(table) if (how := leak(table, name))}
    refused = {name: how for name, how in found.items() if name not in allowed}
    if refused:
        told = "; ".join(f"{name} ({how})" for name, how in refused.items())
        listed = ",".join(refused)
        raise ContractError(
            f"these columns tell the label {label}: {told}. What is only known afterwards must "
            f"stay out (--set columns.ignore={listed}); what is really known in time may stay "
            f"(--set columns.allow={listed})"
        )


def leak(table: pl.DataFrame, name: str) -> str:
    """How a feature tells the label, in words; empty where it does not."""
    if len(table) < LEAST:
        return ""
    column = table.select(pl.col(PREFIX + name).alias("x"), "label")
    if column.schema["label"] == pl.Float64:
        return _tells_number(column)
    return _tells_order(column) or _tells_by_part(column) or _tells_whole(column)


def _tells_number(column: pl.DataFrame) -> str:
    known = column.drop_nulls()
    if len(known) < max(LEAST, COVERS * len(column)):
        return ""
    if known.schema["x"] == pl.Float64:
        agreement = known.select(pl.corr("x", "label", method="spearman")).item()
        if agreement is not None and abs(agreement) >= TELLS**0.5:
            return f"its order is that of the label, rank correlation {agreement:.4f}"
        return ""
    spread = known.select(pl.col("label").var()).item() or 0.0
    within = known.select((pl.col("label") - pl.col("label").mean().over("x")).var()).item() or 0.0
    few = known["x"].n_unique() <= len(known) / 5
    return "each of its values has one label" if few and within < (1 - TELLS) * spread else ""


def _tells_order(column: pl.DataFrame) -> str:
    """Whether a number ranks two outcomes, one above the other."""
    if column.schema["x"] != pl.Float64 or column["label"].n_unique() != 2:
        return ""
    known = column.drop_nulls()
    if len(known) < max(LEAST, COVERS * len(column)) or known["label"].n_unique() < 2:
        return ""
    second = known["label"].unique().sort()[1]
    truth: Array = (known["label"] == second).to_numpy().astype(np.float64)
    found = binary.auc(truth, known["x"].to_numpy())
    return f"by itself it has AUC {found:.4f}" if max(found, 1 - found) >= TELLS else ""


def _tells_by_part(column: pl.DataFrame) -> str:
    """Whether having a value, or lacking one, settles the label."""
    base = column["label"].value_counts(normalize=True)
    share = dict(base.iter_rows())
    for there, words in ((True, "have it"), (False, "lack it")):
        part = column.filter(pl.col("x").is_not_null() == there)
        if len(part) == len(column) or len(part) < max(LEAST, COVERS * len(column)):
            continue
        label, rows = part["label"].value_counts(sort=True).row(0)
        if rows >= TELLS * len(part) and share[label] ** len(part) < CHANCE:
            return f"of {len(part)} rows that {words} {rows / len(part):.1%} are {label}"
    return ""


def _tells_whole(column: pl.DataFrame) -> str:
    """Whether each of its values has one label."""
    known = column.drop_nulls()
    if known.schema["x"] == pl.Float64 and known["x"].n_unique() > BINS:
        return ""  # an order would show, and each value by itself has few rows
    if len(known) < max(LEAST, COVERS * len(column)) or known["x"].n_unique() > len(known) / 5:
        return ""
    most = known.group_by("x", "label").len().group_by("x").agg(pl.col("len").max())["len"].sum()
    alone = known["label"].value_counts(sort=True)["count"][0]
    if alone > TELLS * len(known) or most < TELLS * len(known):
        return ""
    return f"its values give the label of {most / len(known):.1%} of {len(known)} rows"
