"""The ASSIST2009 events as clean rows, in the split they come with; read where they lie."""

from __future__ import annotations

from pathlib import Path

import polars as pl

DATA = Path(__file__).parents[2] / "shared/data/assist2009/events"


def splits(folder: Path = DATA) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Train, validation and test; every tenth train learner is held out for the second."""
    table, test = (_answers(folder, part) for part in ("train", "test"))
    held_out = pl.col("learner").is_in(table["learner"].unique().sort().gather_every(10).to_list())
    return table.filter(~held_out), table.filter(held_out), test


def _answers(folder: Path, part: str) -> pl.DataFrame:
    frame = pl.read_csv(folder / f"preprocessed_data_{part}.csv.gz", separator="\t")
    columns = frame.with_row_index("position").select(
        "position",
        learner=pl.col("user_id").cast(pl.String),
        item=pl.col("item_id").cast(pl.String),
        skills=pl.concat_list(pl.col("skill_id").cast(pl.String)),
        correct=pl.col("correct").cast(pl.Float32),
        time=pl.lit(None, dtype=pl.Float64),
        scored=pl.lit(value=True),
    )
    return columns.sort("learner", "position")
