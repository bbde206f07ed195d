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
from ray_jobs.data.tables import each, parts, read_parquet, scan, write_part
from ray_jobs.errors import ContractError
from ray_jobs.privacy import salted
from ray_jobs.recipe import Split

log = logging.getLogger(__name__)

NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitTable:
    """Three tables on the store, with what proves them apart."""

    uri: str  # folder: train, validation and test, each a folder of Parquet files
    delivered: bool  # the data came with this split
    rows: dict[str, int]  # per split
    scored: dict[str, int]  # rows that are trained on or evaluated, per split
    groups: dict[str, int]  # learners, say, per split
    cut: float | None  # unix seconds: training ends, testing begins
    held_back: int  # rows of training groups after the cut
    content: str = ""  # digest of the three tables

    def table(self, name: str) -> str:
        assert name in NAMES
        return store.join(self.uri, name)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def split(clean: CleanTable, how: Split, *, group: str, salt: str, uri: str) -> SplitTable:
    """Divide a clean table; raises ContractError where a split would be empty or leak."""
    division = _division(clean, how, salt=salt)
    todo = list(enumerate(parts(clean.table)))
    done = each(lambda part: _divided(*part, division, group=group, into=uri), todo)
    result = SplitTable(
        uri=uri,
        delivered=division.delivered,
        rows={name: sum(part.rows[name] for part in done) for name in NAMES},
        scored={name: sum(part.scored[name] for part in done) for name in NAMES},
        groups={name: sum(part.groups[name] for part in done) for name in NAMES},
        cut=division.cut,
        held_back=sum(part.held_back for part in done),
        content=manifest.digest([part.written for part in done]),
    )
    try:
        _refuse(result, group, sum(part.straddlers for part in done))
    except ContractError:
        store.remove(uri)
        raise
    store.write_json(store.join(uri, "split.json"), result.as_dict())
    log.info("split: %s", ", ".join(f"{n} {result.rows[n]} rows" for n in NAMES))
    return result


@dataclass(frozen=True)
class Part:
    """What became of a part of the clean table; of a group it holds all rows or none."""

    written: list[str]  # digests
    rows: dict[str, int]
    scored: dict[str, int]
    groups: dict[str, int]
    held_back: int
    straddlers: int  # groups that stand in more than one split


def _divided(number: int, uri: str, division: Division, *, group: str, into: str) -> Part:
    table = read_parquet(uri)
    table = table.with_columns(division.assigned(table).alias("split"))
    kept = division.held(table)
    of = dict.fromkeys(NAMES, kept.clear()) | {
        str(name): part for (name,), part in kept.partition_by("split", as_dict=True).items()
    }
    return Part(
        written=[write_part(store.join(into, name), number, of[name]) for name in NAMES],
        rows={name: len(part) for name, part in of.items()},
        scored={name: int(part["scored"].sum()) for name, part in of.items()},
        groups={name: part[group].n_unique() for name, part in of.items()},
        held_back=len(table) - len(kept),
        # Where the split follows from the bucket, it is the same for all of a group.
        straddlers=_straddlers(table, group) if division.delivered else 0,
    )


def refuse_one_outcome(splits: SplitTable, label: str) -> None:
    """Raise ContractError where every row to learn from, or to measure on, ends alike."""
    for name, purpose in (("train", "learn"), ("test", "measure")):
        found = (
            scan(splits.table(name))
            .filter("scored")
            .select(pl.col(label).n_unique().alias("values"), pl.col(label).first())
        )
        values, value = found.collect().row(0)
        if values == 1:
            raise ContractError(
                f"every one of the {splits.scored[name]} scored rows of the {name} split has "
                f"{label} = {value}, so there is nothing to {purpose}; give a log with other "
                "outcomes too, or name the column that tells them apart with --set "
                f"columns.{label}=NAME"
            )


def folded(table: pl.DataFrame, folds: int, *, salt: str) -> pl.Series:
    """The fold (Int64, 0 to folds - 1) of each row, equal for all rows of a group."""
    place = salted(table["bucket"], f"{salt} folds")
    return (place * folds).floor().cast(pl.Int64).alias("fold")


@dataclass(frozen=True)
class Division:
    """How the rows of a table are divided, as far as that hangs on all of them."""

    how: Split
    salt: str
    delivered: bool  # every row came with its split
    validated: bool  # some came for validation
    cut: float | None  # unix seconds

    def assigned(self, table: pl.DataFrame) -> pl.Series:
        """The split (String) of each row, equal for all rows of a group."""
        place = salted(table["bucket"], self.salt)
        frame = pl.DataFrame([table["split"], place.alias("place")])
        validation = pl.lit("validation")
        if not self.delivered:
            label = (
                pl.when(pl.col("place") < self.how.test)
                .then(pl.lit("test"))
                .when(pl.col("place") < self.how.test + self.how.validation)
                .then(validation)
                .otherwise(pl.lit("train"))
            )
        elif self.validated:
            label = pl.col("split")
        else:  # only train and test came: validation learners are taken from train
            chosen = (pl.col("split") == "train") & (pl.col("place") < self.how.validation)
            label = pl.when(chosen).then(validation).otherwise(pl.col("split"))
        return frame.select(label.alias("split"))["split"]

    def held(self, table: pl.DataFrame) -> pl.DataFrame:
        """Training groups held to the past of the cut, and test groups scored in its future."""
        if self.cut is None:
            return table
        past = pl.col("time") <= self.cut
        kept = table.filter(past | (pl.col("split") == "test"))
        scored = pl.col("scored") & ((pl.col("split") != "test") | ~past)
        return kept.with_columns(scored.alias("scored"))


def _division(clean: CleanTable, how: Split, *, salt: str) -> Division:
    """What must be known of all rows before any is assigned."""
    rows, split_ = scan(clean.table), pl.col("split")
    delivered, validated = (
        bool(rows.select(told).collect().item())
        for told in (split_.is_not_null().all(), (split_ == "validation").any())
    )
    cut = None
    if how.until < 1 and clean.timed:
        cut = float(rows.select(pl.col("time").quantile(how.until)).collect().item() or 0.0)
    elif how.until < 1:
        log.warning("split: the log has no times, so until=%s cuts nothing", how.until)
    return Division(how, salt, delivered, validated, cut)


def _straddlers(table: pl.DataFrame, group: str) -> int:
    """Groups that stand in more than one split."""
    counts = table.group_by(group).agg(pl.col("split").n_unique())
    return int((counts["split"] > 1).sum())


def _refuse(result: SplitTable, group: str, straddlers: int) -> None:
    if straddlers:
        raise ContractError(
            f"{straddlers} groups ({group}) stand in more than one of the delivered splits, which "
            "would leak; deliver the files under names without train/test and Lyceum will split "
            "them"
        )
    for name in NAMES:
        if not result.scored[name]:
            raise ContractError(
                f"the {name} split is empty: {sum(result.groups.values())} groups ({group}) in "
                "all; give more data, or change --set split.test / split.validation"
            )
