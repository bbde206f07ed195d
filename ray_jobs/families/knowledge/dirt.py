"""The dirt of real logs, planted with known counts.

Every dirty row is added to the true ones and is wrong in one way only, so
that cleaning must find exactly what was planted and lose nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.random import Generator

SHARES = {
    "repeat": 0.40,
    "missing_learner": 0.08,
    "missing_item": 0.08,
    "missing_correct": 0.08,
    "invalid_correct": 0.10,
    "invalid_time": 0.10,
    "conflict": 0.06,
    "malformed_line": 0.10,
}  # of all dirty rows
DISORDER = 200.0  # rows: sd of how far a row strays from the order of time

Row = tuple[str, str, str, str, str]  # learner, item, skills, correct, time


def soiled(rows: pl.DataFrame, share: float, rng: Generator) -> tuple[list[str], dict[str, int]]:
    """Plant dirt among true rows and disorder them; returns the lines and the counts by reason.

    Both rows of a conflict are counted, since neither can be trusted; of an
    answer delivered twice only the second is.
    """
    wanted = {reason: round(share * part * rows.height) for reason, part in SHARES.items()}
    repeats, rest = _delivered_twice(rows, wanted.pop("repeat"), rng)
    sources = _sources(rest, sum(wanted.values()), rng)
    planted = {"repeat": len(repeats)}
    lines = [",".join(row) for row in (*rows.iter_rows(), *repeats)]
    for reason, count in wanted.items():
        taken, sources = sources[:count], sources[count:]
        lines += [PLANT[reason](row, i) for i, row in enumerate(taken)]
        planted[reason] = len(taken) * (2 if reason == "conflict" else 1)
    # Additions come from anywhere in time, so they are spread over the whole log.
    strays = rng.uniform(0, rows.height, len(lines) - rows.height)
    order = np.concatenate([np.arange(rows.height), strays])
    order += rng.normal(0.0, min(DISORDER, rows.height / 10), len(lines))
    return [lines[i] for i in order.argsort(kind="stable")], planted


def _delivered_twice(
    rows: pl.DataFrame, count: int, rng: Generator
) -> tuple[list[Row], pl.DataFrame]:
    """One stretch of the log, and all the rest."""
    start = int(rng.integers(rows.height - count + 1))
    stretch = rows.slice(start, count)
    return stretch.rows(), pl.concat([rows.head(start), rows.slice(start + count)])


def _sources(rows: pl.DataFrame, count: int, rng: Generator) -> list[Row]:
    """True rows to make dirt of, no two alike in learner and item, nor in time.

    So dirty rows can be neither repeats nor conflicts of each other.
    """
    few = rows[rng.permutation(rows.height)[: 3 * count]]
    few = few.unique(["learner", "item"], keep="first", maintain_order=True)
    return few.unique("time", keep="first", maintain_order=True).head(count).rows()


def _later(time: str) -> str:
    """Two seconds on: no answer is there, for each takes five at least."""
    return str(int(time) + 2)


def _missing_learner(row: Row, _: int) -> str:
    return ",".join(["", row[1], row[2], row[3], _later(row[4])])


def _missing_item(row: Row, _: int) -> str:
    return ",".join([row[0], "", row[2], row[3], _later(row[4])])


def _missing_correct(row: Row, _: int) -> str:
    return ",".join([row[0], row[1], row[2], "", _later(row[4])])


def _invalid_correct(row: Row, i: int) -> str:
    return ",".join([row[0], row[1], row[2], ("7", "-1", "abc")[i % 3], _later(row[4])])


def _invalid_time(row: Row, i: int) -> str:
    return ",".join([*row[:4], ("not a time", f"-{row[4]}")[i % 2]])


def _conflict(row: Row, _: int) -> str:
    return ",".join([row[0], row[1], row[2], "0" if row[3] == "1" else "1", row[4]])


def _malformed_line(row: Row, i: int) -> str:
    """Cut off, or with a field too many."""
    return ",".join(row[:3]) if i % 2 else ",".join([*row[:4], _later(row[4]), "web"])


PLANT: dict[str, Callable[[Row, int], str]] = {
    "missing_learner": _missing_learner,
    "missing_item": _missing_item,
    "missing_correct": _missing_correct,
    "invalid_correct": _invalid_correct,
    "invalid_time": _invalid_time,
    "conflict": _conflict,
    "malformed_line": _malformed_line,
}
