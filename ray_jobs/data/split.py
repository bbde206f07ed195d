"""Clean tables to train, validation and test, so that no learner and no future leaks.

A group lies in one split alone, by a salted public hash or as delivered; with
a cut in time, training ends where testing begins.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from ray_jobs import manifest, store
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.snapshot import read_parquet, write_parquet
from ray_jobs.errors import ContractError
from ray_jobs.privacy import salted
from ray_jobs.recipe import Split

log = logging.getLogger(__name__)

NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitTable:
    """Three tables on the store, with what proves them apart."""

    uri: str  # folder: train.parquet, validation.parquet, test.parquet
    delivered: bool  # the data came with this split
    rows: dict[str, int]  # per split
    scored: dict[str, int]  # rows that are trained on or evaluated, per split
    groups: dict[str, int]  # learners, say, per split
    cut: float | None  # unix seconds: training ends, testing begins
    held_back: int  # rows of training groups after the cut
    content: str = ""  # digest of the three tables

    def table(self, name: str) -> str:
        assert name in NAMES
        return store.join(self.uri, f"{name}.parquet")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def split(clean: CleanTable, how: Split, *, group: str, salt: str, uri: str) -> SplitTable:
    """Divide a clean table; raises ContractError where a split would be empty or leak."""
    table = read_parquet(clean.table)
    delivered = bool(table["split"].is_not_null().all())
    table = table.with_columns(assigned(table, how, salt=salt, delivered=delivered).alias("split"))
    _refuse_straddlers(table, group)
    cut, kept = _cut(table, how, timed=clean.timed)
    parts = {name: kept.filter(pl.col("split") == name) for name in NAMES}
    for name, part in parts.items():
        if not part["scored"].any():
            raise ContractError(
                f"the {name} split is empty: {table[group].n_unique()} groups ({group}) in all; "
                "give more data, or change --set split.test / split.validation"
            )
    written = [write_parquet(store.join(uri, f"{n}.parquet"), part) for n, part in parts.items()]
    result = SplitTable(
        uri=uri,
        delivered=delivered,
        rows={name: len(part) for name, part in parts.items()},
        scored={name: int(part["scored"].sum()) for name, part in parts.items()},
        groups={name: part[group].n_unique() for name, part in parts.items()},
        cut=cut,
        held_back=len(table) - len(kept),
        content=manifest.digest(written),
    )
    store.write_json(store.join(uri, "split.json"), result.as_dict())
    log.info("split: %s", ", ".join(f"{n} {result.rows[n]} rows" for n in NAMES))
    return result


def refuse_one_outcome(splits: SplitTable, label: str) -> None:
    """Raise ContractError where every row to learn from, or to measure on, ends alike."""
    for name, purpose in (("train", "learn"), ("test", "measure")):
        part = read_parquet(splits.table(name))
        found = part.filter("scored")[label]
        if found.n_unique() == 1:
            raise ContractError(
                f"every one of the {len(found)} scored rows of the {name} split has {label} = "
                f"{found[0]}, so there is nothing to {purpose}; give a log with other outcomes "
                f"too, or name the column that tells them apart with --set columns.{label}=NAME"
            )


def folded(table: pl.DataFrame, folds: int, *, salt: str) -> pl.Series:
    """The fold (Int64, 0 to folds - 1) of each row, equal for all rows of a group."""
    place = salted(table["bucket"], f"{salt} folds")
    return (place * folds).floor().cast(pl.Int64).alias("fold")


def assigned(table: pl.DataFrame, how: Split, *, salt: str, delivered: bool) -> pl.Series:
    """The split (String) of each row, equal for all rows of a group."""
    place = salted(table["bucket"], salt)
    frame = table.select("split").with_columns(place.alias("place"))
    validation = pl.lit("validation")
    if not delivered:
        label = (
            pl.when(pl.col("place") < how.test)
            .then(pl.lit("test"))
            .when(pl.col("place") < how.test + how.validation)
            .then(validation)
            .otherwise(pl.lit("train"))
        )
    elif table["split"].eq("validation").any():
        label = pl.col("split")
    else:  # only train and test came: validation learners are taken from train
        chosen = (pl.col("split") == "train") & (pl.col("place") < how.validation)
        label = pl.when(chosen).then(validation).otherwise(pl.col("split"))
    return frame.select(label.alias("split"))["split"]


def _refuse_straddlers(table: pl.DataFrame, group: str) -> None:
    counts = table.group_by(group).agg(pl.col("split").n_unique())
    bad = int((counts["split"] > 1).sum())
    if bad:
        raise ContractError(
            f"{bad} groups ({group}) stand in more than one of the delivered splits, which would "
            "leak; deliver the files under names without train/test and Lyceum will split them"
        )


def _cut(table: pl.DataFrame, how: Split, *, timed: bool) -> tuple[float | None, pl.DataFrame]:
    """Hold training groups to the past of the cut, and score test groups in its future."""
    if how.until >= 1:
        return None, table
    if not timed:
        log.warning("split: the log has no times, so until=%s cuts nothing", how.until)
        return None, table
    cut = float(table["time"].quantile(how.until) or 0.0)
    past = pl.col("time") <= cut
    kept = table.filter(past | (pl.col("split") == "test"))
    scored = pl.col("scored") & ((pl.col("split") != "test") | ~past)
    return cut, kept.with_columns(scored.alias("scored"))
