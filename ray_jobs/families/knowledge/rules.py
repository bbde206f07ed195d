"""Raw rows to answers: the rules of the answer table, each a name and a polars expression.

Repeated deliveries go, contradictions are set apart, and rows that are one
answer under several skills become one. Every bad row keeps its reason.
"""

from __future__ import annotations

import polars as pl

from ray_jobs.data.clean import Cleaned
from ray_jobs.data.moments import LATEST, seconds
from ray_jobs.families.knowledge.table import CLEAN, LONGEST_NAME, MOST_SKILLS, Columns

TRUTHS = {"true": 1.0, "correct": 1.0, "false": 0.0, "incorrect": 0.0, "wrong": 0.0}
TEXTS = ("learner", "item", "skills", "correct", "time")
KEY = ("learner", "item", "time")  # one answer, in a log with times


def clean(rows: pl.DataFrame, timed: bool, columns: Columns) -> Cleaned:
    """Make the clean table; the rows that break a rule come back beside it.

    Two rows are one delivery of an answer when learner, item, time, skills and
    outcome agree. A log without times cannot tell a repeat from a second try,
    so there nothing counts as repeated or contradictory.
    """
    typed = _typed(rows, columns.skill_separator)
    broken = pl.coalesce(pl.when(rule).then(pl.lit(name)) for name, rule in _rules(timed).items())
    typed = typed.with_columns(broken.alias("reason"))
    good = typed.filter(pl.col("reason").is_null())
    single = (
        good.filter(pl.struct(*KEY, "correct", "skills").is_first_distinct()) if timed else good
    )
    if timed:
        conflict = pl.col("correct").n_unique().over(KEY) > 1
        single = single.with_columns(pl.when(conflict).then(pl.lit("conflict")).alias("reason"))
    answers = _merged(single.filter(pl.col("reason").is_null()), timed)
    bad = pl.concat([f.filter(pl.col("reason").is_not_null()) for f in (typed, single)])
    return Cleaned(
        table=_table(answers, timed),
        bad=_raw(bad, rows),
        merged=len(single) - int(single["reason"].is_not_null().sum()) - len(answers),
        repeats=len(good) - len(single),
    )


def _typed(rows: pl.DataFrame, skill_separator: str) -> pl.DataFrame:
    number = pl.col("correct").cast(pl.Float32, strict=False)
    word = (
        pl.col("correct")
        .str.to_lowercase()
        .replace_strict(TRUTHS, default=None, return_dtype=pl.Float32)
    )
    sets = _skill_sets(rows["skills"], skill_separator)
    rows = rows.join(sets, on="skills", how="left", nulls_equal=True, maintain_order="left")
    return rows.with_columns(
        pl.coalesce(number, word).alias("credit"),
        seconds(pl.col("time")).alias("seconds"),
    ).select(
        "file", "line", "learner", "item", "bucket", "position", "split",
        pl.col("correct").is_not_null().alias("answered"),
        pl.col("time").is_not_null().alias("dated"),
        pl.col("credit").alias("correct"),
        pl.col("seconds").alias("time"),
        pl.col("set").alias("skills"),
    )  # fmt: skip


def _skill_sets(skills: pl.Series, separator: str) -> pl.DataFrame:
    """Each text there is of `skills` with its `set`: far fewer than there are rows."""
    tags = pl.col("skills").str.split(separator).list.eval(pl.element().str.strip_chars())
    named = tags.list.eval(pl.element().filter(pl.element() != ""))
    texts = skills.unique().to_frame("skills")
    return texts.with_columns(named.list.unique().list.sort().fill_null([]).alias("set"))


def _rules(timed: bool) -> dict[str, pl.Expr]:
    """Reason to what breaks it, the first that applies first."""
    credit, time = pl.col("correct"), pl.col("time")
    rules = {
        "missing_learner": pl.col("learner").is_null(),
        "missing_item": pl.col("item").is_null(),
        "long_item": pl.col("item").str.len_chars() > LONGEST_NAME,
        "too_many_skills": pl.col("skills").list.len() > MOST_SKILLS,
        "missing_correct": ~pl.col("answered"),
        "invalid_correct": credit.is_null() | credit.is_nan() | ~credit.is_between(0, 1),
    }
    if timed:
        rules["missing_time"] = ~pl.col("dated")
        rules["invalid_time"] = time.is_null() | time.is_nan() | ~time.is_between(0, LATEST)
    return rules


def _merged(rows: pl.DataFrame, timed: bool) -> pl.DataFrame:
    """One row per answer: rows that differ in nothing but their skill are one.

    Without times, a row is of the answer before it when it follows with the
    same item and outcome under another skill; the same skill again is a new try.
    """
    same = [*KEY, "correct"]
    if not timed:
        rows = rows.sort("learner", "position")
        new = pl.any_horizontal(
            pl.col(c).ne_missing(pl.col(c).shift()) for c in ("learner", "item", "correct")
        )
        again = pl.col("skills").eq_missing(pl.col("skills").shift())
        rows = rows.with_columns((new | again).cum_sum().alias("answer"))
        same = ["answer"]
    several = pl.len().over(same) > 1
    others = [pl.col(c).first() for c in rows.columns if c not in (*same, "skills")]
    skills = pl.col("skills").list.explode(keep_nulls=False, empty_as_null=False)
    groups = rows.filter(several).group_by(same, maintain_order=True)
    united = groups.agg(skills.unique().sort(), *others)
    return pl.concat([rows.filter(~several), united.select(rows.columns)])


def _table(answers: pl.DataFrame, timed: bool) -> pl.DataFrame:
    """Ordered so that with times the order of delivery leaves no trace, nor do outcomes."""
    if timed:
        table = answers.sort("learner", "time", "item")
        table = table.with_columns(pl.int_range(pl.len()).alias("position"))
    else:
        table = answers.with_columns(pl.lit(None, pl.Float64).alias("time"))
        table = table.sort("learner", "position")
    table = table.with_columns(pl.lit(True).alias("scored"))
    return table.select(pl.col(name).cast(kind) for name, kind in CLEAN.items())


def _raw(bad: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    texts = rows.select("position", pl.struct(TEXTS).struct.json_encode().alias("raw"))
    return bad.join(texts, on="position").select("file", "line", "reason", "raw")
