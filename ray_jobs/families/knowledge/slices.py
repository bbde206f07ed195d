"""Where a knowledge model may do well or badly: the parts of the test split a report names.

By how much was known of the learner, by whether item and skills were met in
training, by the most practised skills, and by how many skills an answer asks for.
"""

from __future__ import annotations

import polars as pl

from ray_jobs.families.knowledge.vocabulary import Vocabulary

HISTORY = pl.Enum(["first answer", "answers 2-10", "answers 11-50", "answers 51+"])
MET = pl.Enum(["met in training", "new"])
SKILLS = pl.Enum(["all met in training", "some new", "none named"])
COUNT = pl.Enum(["0", "1", "2", "3+"])
TOP = 10  # skills with figures of their own


def slices(table: pl.DataFrame, vocabulary: Vocabulary) -> pl.DataFrame:
    """One row per row of a clean table, one column per way to divide its scored rows.

    `skill` is a list: an answer that asks for two common skills counts for both.
    """
    return table.select(
        _history().alias("history"),
        _item(vocabulary).alias("item"),
        _skills(vocabulary).alias("skills"),
        _top_skills(table).alias("skill"),
        _count().alias("skill_count"),
    )


def _history() -> pl.Expr:
    # Every answer counts as known, scored or not: context rows inform the model too.
    position = pl.int_range(1, pl.len() + 1).over("learner")
    return (
        pl.when(position == 1)
        .then(pl.lit(HISTORY.categories[0]))
        .when(position <= 10)
        .then(pl.lit(HISTORY.categories[1]))
        .when(position <= 50)
        .then(pl.lit(HISTORY.categories[2]))
        .otherwise(pl.lit(HISTORY.categories[3]))
        .cast(HISTORY)
    )


def _item(vocabulary: Vocabulary) -> pl.Expr:
    met = pl.col("item").is_in(list(vocabulary.items))
    return pl.when(met).then(pl.lit("met in training")).otherwise(pl.lit("new")).cast(MET)


def _skills(vocabulary: Vocabulary) -> pl.Expr:
    known = pl.lit(list(vocabulary.skills), dtype=pl.List(pl.String))
    new = pl.col("skills").list.set_difference(known).list.len() > 0
    return (
        pl.when(pl.col("skills").list.len() == 0)
        .then(pl.lit("none named"))
        .when(new)
        .then(pl.lit("some new"))
        .otherwise(pl.lit("all met in training"))
        .cast(SKILLS)
    )


def _top_skills(table: pl.DataFrame) -> pl.Expr:
    named = table.filter("scored")["skills"].explode().drop_nulls()
    counts = named.value_counts().sort(["count", "skills"], descending=[True, False])
    top = counts.head(TOP)["skills"].to_list()
    return pl.col("skills").list.set_intersection(pl.lit(top, dtype=pl.List(pl.String)))


def _count() -> pl.Expr:
    count = pl.col("skills").list.len()
    text = pl.when(count >= 3).then(pl.lit("3+")).otherwise(count.cast(pl.String))
    return text.cast(COUNT)
