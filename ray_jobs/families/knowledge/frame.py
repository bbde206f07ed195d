"""A table of answers as an analyst holds it, turned into histories and back into its rows.

Rows with an outcome are a learner's past; rows without are questions. Either
way a row is predicted from that learner's earlier outcomes, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ray_jobs.data.moments import LATEST
from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge.batch import History, examples
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.frames import Table, must_have, numbers, texts, values
from ray_jobs.verb import Column

if TYPE_CHECKING:
    import pandas as pd  # a worker or a replica need not have it

SEPARATOR = ";"


COLUMNS = (
    Column("learner", "text", True, "whose answer; any name, rows in order of time for each"),
    Column("item", "text", True, "the exercise"),
    Column("skills", "any", False, "a list of names, or names joined by ';'"),
    Column("correct", "number", False, "0 to 1; empty where a prediction is asked for"),
    Column("time", "number", False, "unix seconds"),
)


def example(vocabulary: Vocabulary) -> dict[str, list[Any]]:
    """Columns of a small valid frame: one learner, two answers, one question."""
    items = [*vocabulary.items[:2], "an item never seen"]
    return {
        "learner": ["ada"] * len(items),
        "item": items,
        "skills": [SEPARATOR.join(vocabulary.skills[:1])] * len(items),
        "correct": [1.0, 0.0, None][-len(items) :],
    }


def frame(
    rows: pd.DataFrame | Table, vocabulary: Vocabulary
) -> tuple[list[History], NDArray[np.int64]]:
    """Histories to predict, and (N,) the row of the frame each scored step belongs to.

    Known outcomes make one history per learner; each question makes one of its
    own, since it must not look like an answer to those after it.
    Raises ContractError naming column and row where the frame is not as COLUMNS says.
    """
    table = _table(rows)
    given = table.filter(pl.col("correct").is_not_null())
    histories = pl.concat([_known(given), _asked(table, given)])
    order = histories.filter("scored")["row"].to_numpy().astype(np.int64)
    return examples(histories, vocabulary), order


def _known(given: pl.DataFrame) -> pl.DataFrame:
    first = pl.col("row").min().over("learner")
    ordered = given.sort(first, "row")
    return ordered.with_columns(pl.lit(True).alias("scored"))


def _asked(table: pl.DataFrame, given: pl.DataFrame) -> pl.DataFrame:
    """One history per question: the outcomes before it as context, the question last."""
    questions = table.filter(pl.col("correct").is_null())
    asked = questions.select("learner", pl.col("row").alias("question"))
    context = asked.join(given, on="learner").filter(pl.col("row") < pl.col("question"))
    parts = [
        context.with_columns(pl.lit(False).alias("scored")),
        questions.with_columns(
            pl.col("row").alias("question"), pl.lit(0.0, pl.Float32).alias("correct")
        ).with_columns(pl.lit(True).alias("scored")),
    ]
    together = pl.concat(parts, how="diagonal").sort("question", "row")
    # The name only keeps histories apart; a learner's own has no such prefix.
    name = pl.format("question {}: {}", "question", "learner")
    return together.with_columns(name.alias("learner")).select(*table.columns, "scored")


def _table(rows: pd.DataFrame | Table) -> pl.DataFrame:
    must_have(rows, COLUMNS)
    table = pl.DataFrame(
        {
            "row": pl.int_range(len(rows), eager=True),
            "learner": pl.Series(_names(rows, "learner"), dtype=pl.String),
            "item": pl.Series(_names(rows, "item"), dtype=pl.String),
            "skills": pl.Series(_skill_sets(rows), dtype=pl.List(pl.String)),
            "correct": pl.Series(numbers(rows, "correct"), dtype=pl.Float32),
            "time": pl.Series(numbers(rows, "time"), dtype=pl.Float64),
        }
    )
    _check(table)
    # Prefixed, so that no learner's name can look like that of a question.
    return table.with_columns(pl.format("learner {}", "learner").alias("learner"))


def _check(table: pl.DataFrame) -> None:
    wrong = table.filter(~pl.col("correct").is_between(0, 1))
    if len(wrong):
        row, value = wrong["row"][0], wrong["correct"][0]
        raise ContractError(f"row {row}: correct is {value}; expected 0 to 1, or empty for asking")
    odd = table.filter(~pl.col("time").is_between(0, LATEST))
    if len(odd):
        row, value = odd["row"][0], odd["time"][0]
        raise ContractError(f"row {row}: time is {value}; expected unix seconds, or empty")
    back = table.filter(pl.col("time").forward_fill().diff().over("learner") < 0)
    if len(back):
        raise ContractError(
            f"row {back['row'][0]}: its time is before that of the learner's previous row; "
            "sort the frame by learner and time"
        )


def _names(rows: pd.DataFrame | Table, name: str) -> list[str | None]:
    found = texts(rows, name)
    if None in found:
        raise ContractError(f"row {found.index(None)}: {name} is empty; expected a name")
    return found


def _skill_sets(rows: pd.DataFrame | Table) -> list[list[str]]:
    return [_skill_set(row, value) for row, value in enumerate(values(rows, "skills"))]


def _skill_set(row: int, value: Any) -> list[str]:
    if isinstance(value, str):
        value = [name.strip() for name in value.split(SEPARATOR)]
    elif value is not None and not isinstance(value, Iterable):
        raise ContractError(f"row {row}: skills is {value!r}; expected a list, or names with ';'")
    return sorted({str(name) for name in (() if value is None else value) if str(name)})
