"""Where a knowledge model may do well or badly: the parts of the test split a report names.

By how much was known of the learner, by whether item and skills were met in
training, by the most practised skills, and by how many skills an answer asks for;
where the log tells, by how long it took, and by whatever else it says of learners.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ray_jobs.families.knowledge.vocabulary import Vocabulary

HISTORY = pl.Enum(["first answer", "answers 2-10", "answers 11-50", "answers 51+"])
MET = pl.Enum(["met in training", "new"])
SKILLS = pl.Enum(["all met in training", "some new", "none named"])
RESERVED = ("group", "target", "row", "len")  # columns of an evaluation
FEWEST = 10  # learners of whom figures are told apart from the rest
COUNT = pl.Enum(["0", "1", "2", "3+"])
RESPONSE = pl.Enum(["under 3 s", "3 to 10 s", "10 to 30 s", "30 to 120 s", "over 120 s"])
RESPONSE_S = (3.0, 10.0, 30.0, 120.0)
TOP = 10  # skills, or values of a column, with figures of their own


def slices(table: pl.DataFrame, vocabulary: Vocabulary) -> pl.DataFrame:
    """One row per row of a clean table, one column per way to divide its scored rows.

    `skill` is a list: an answer that asks for two common skills counts for both.
    """
    own = table.select(
        _history().alias("history"),
        _item(vocabulary).alias("item"),
        _skills(vocabulary).alias("skills"),
        _top_skills(table).alias("skill"),
        _count().alias("skill_count"),
        _response().alias("response_time"),
    )
    if own["response_time"].null_count() == len(own):
        own = own.drop("response_time")
    return own.hstack(_about(table, own.columns))


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


def _response() -> pl.Expr:
    seconds = pl.col("response_s")
    *below, beyond = RESPONSE.categories
    told = pl.lit(beyond)
    for bound, name in reversed(list(zip(RESPONSE_S, below, strict=True))):
        told = pl.when(seconds < bound).then(pl.lit(name)).otherwise(told)
    return pl.when(seconds.is_not_null()).then(told).cast(RESPONSE)


def _about(table: pl.DataFrame, taken: Sequence[str]) -> list[pl.Series]:
    """A column for each name that something is said under, with its commonest values.

    None of a value that few learners share: its figures would be theirs.
    """
    rows = table.select(pl.int_range(pl.len()).alias("row"), "learner", "scored", said="about")
    said = rows.explode("said").drop_nulls("said")
    name, value = (pl.col("said").str.splitn("=", 2).struct.field(f"field_{i}") for i in (0, 1))
    said = said.with_columns(name=name, value=value)
    found: list[pl.Series] = []
    for (about,), part in said.group_by("name", maintain_order=True):
        shared = (
            part.filter("scored")
            .group_by("value")
            .agg(pl.len().alias("count"), pl.col("learner").n_unique().alias("learners"))
            .filter(pl.col("learners") >= FEWEST)
        )
        top = shared.sort(["count", "value"], descending=[True, False]).head(TOP)["value"]
        kept = part.filter(pl.col("value").is_in(top.implode()))
        column = rows.join(kept, on="row", how="left", maintain_order="left")["value"]
        # A name that is one of ours must not stand for it.
        own = str(about)
        while own in {*taken, *RESERVED, *(one.name for one in found)}:
            own += "_"
        found.append(column.alias(own))
    return found


def _count() -> pl.Expr:
    count = pl.col("skills").list.len()
    text = pl.when(count >= 3).then(pl.lit("3+")).otherwise(count.cast(pl.String))
    return text.cast(COUNT)
