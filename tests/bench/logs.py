"""A log of any size in random order, one row in a hundred of it wrong in one of eight ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

CHUNK_ROWS = 1_000_000
ROWS_PER_LEARNER = 100
ITEMS, SKILLS = 20_000, 200
BEGIN, SPAN_S = 1_600_000_000, 40_000_000
DIRT = 0.01
KINDS = 8


def write(path: Path, rows: int, *, seed: int = 0) -> None:
    """Write a CSV file with user_id, item_id, timestamp, correct and skill_id.

    The wrong rows lack a learner, an item, an outcome or a time, have an outcome or a time that
    cannot be, too few fields, or stand in the file twice.
    """
    random = np.random.default_rng(seed)
    learners = max(10, rows // ROWS_PER_LEARNER)
    with path.open("w") as file:
        file.write("user_id,item_id,timestamp,correct,skill_id\n")
        for begin in range(0, rows, CHUNK_ROWS):
            n = min(CHUNK_ROWS, rows - begin)
            file.write(_lines(random, n, learners))


def _lines(random: np.random.Generator, n: int, learners: int) -> str:
    item = random.integers(0, ITEMS, n)
    kind = np.where(random.random(n) < DIRT, random.integers(1, KINDS + 1, n), 0)
    frame = pl.DataFrame(
        {
            "user": random.integers(0, learners, n),
            "item": item,
            "time": BEGIN + random.integers(0, SPAN_S, n),
            "correct": random.integers(0, 2, n),
            "skill": item % SKILLS,
            "kind": kind,
        }
    ).cast(pl.String)
    wrong = [
        pl.lit("").alias("user"), pl.lit("").alias("item"), pl.lit("").alias("correct"),
        pl.lit("").alias("time"), pl.lit("7").alias("correct"), pl.lit("9" * 12).alias("time"),
    ]  # fmt: skip
    columns = {name: pl.col(name) for name in ("user", "item", "time", "correct", "skill")}
    for number, value in enumerate(wrong, start=1):
        name = value.meta.output_name()
        columns[name] = pl.when(pl.col("kind") == str(number)).then(value).otherwise(columns[name])
    line = pl.concat_str([value.alias(name) for name, value in columns.items()], separator=",")
    short = pl.concat_str("user", "item", "time", separator=",")
    text = pl.when(pl.col("kind") == "7").then(short).otherwise(line)
    twice = pl.when(pl.col("kind") == "8").then(pl.concat_str(line, line, separator="\n"))
    lines = frame.select(twice.otherwise(text).alias("line"))["line"]
    return str(lines.str.join("\n")[0]) + "\n"
