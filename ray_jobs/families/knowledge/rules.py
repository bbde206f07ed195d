"""Raw rows to answers: the rules of the answer table, each a name and a polars expression.

Repeated deliveries go, contradictions are set apart, and rows that are one
answer under several skills become one. Every bad row keeps its reason.
"""

from __future__ import annotations

import polars as pl

from ray_jobs.data.clean import Cleaned
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.recipe import Columns

LATEST = 4_102_444_800.0  # 2100-01-01: a later second is milliseconds or a slip
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
    text = [pl.col(c).str.strip_chars().replace("", None) for c in TEXTS if c != "learner"]
    rows = rows.with_columns(text)
    number = pl.col("correct").cast(pl.Float32, strict=False)
    word = (
        pl.col("correct")
        .str.to_lowercase()
        .replace_strict(TRUTHS, default=None, return_dtype=pl.Float32)
    )
    moment = pl.col("time").str.to_datetime(strict=False, time_zone="UTC", ambiguous="null")
    seconds = pl.col("time").cast(pl.Float64, strict=False)
    skills = pl.col("skills").str.split(skill_separator).list.eval(pl.element().str.strip_chars())
    return rows.with_columns(
        pl.coalesce(number, word).alias("credit"),
        pl.coalesce(seconds, moment.dt.epoch("us") / 1e6).alias("seconds"),
        skills.list.unique().list.sort().fill_null([]).alias("set"),
    ).select(
        "file", "line", "learner", "item", "bucket", "position", "split",
        pl.col("correct").is_not_null().alias("answered"),
        pl.col("time").is_not_null().alias("dated"),
        pl.col("credit").alias("correct"),
        pl.col("seconds").alias("time"),
        pl.col("set").alias("skills"),
    )  # fmt: skip


def _rules(timed: bool) -> dict[str, pl.Expr]:
    """Reason to what breaks it, the first that applies first."""
    credit, time = pl.col("correct"), pl.col("time")
    rules = {
        "missing_learner": pl.col("learner").is_null(),
        "missing_item": pl.col("item").is_null(),
        "missing_correct": ~pl.col("answered"),
        "invalid_correct": credit.is_null() | credit.is_nan() | ~credit.is_between(0, 1),
    }
    if timed:
        rules["missing_time"] = ~pl.col("dated")
        rules["invalid_time"] = time.is_null() | time.is_nan() | ~time.is_between(0, LATEST)
    return rules


def _merged(rows: pl.DataFrame, timed: bool) -> pl.DataFrame:
    """One row per answer: rows that differ in nothing but their skill are one."""
    if timed:
        same = [*KEY, "correct"]
    else:
        # Without times, one answer's rows follow each other. When a skill comes
        # round again within such a run, it is the next answer to the same item.
        rows = rows.sort("learner", "position")
        new = pl.any_horizontal(
            pl.col(c).ne_missing(pl.col(c).shift()) for c in ("learner", "item", "correct")
        )
        rows = rows.with_columns(new.cum_sum().alias("run"))
        rows = rows.with_columns(pl.col("position").cum_count().over("run", "skills").alias("try"))
        same = ["run", "try"]
    others = [pl.col(c).first() for c in rows.columns if c not in (*same, "skills")]
    skills = pl.col("skills").list.explode(keep_nulls=False, empty_as_null=False)
    return rows.group_by(same, maintain_order=True).agg(skills.unique().sort(), *others)


def _table(answers: pl.DataFrame, timed: bool) -> pl.DataFrame:
    time = pl.col("time") if timed else pl.lit(None, pl.Float64)
    table = answers.with_columns(time.alias("time"), pl.lit(True).alias("scored"))
    table = table.sort("learner", "time", "position")
    return table.select(pl.col(name).cast(kind) for name, kind in CLEAN.items())


def _raw(bad: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    texts = rows.select("position", pl.struct(TEXTS).struct.json_encode().alias("raw"))
    return bad.join(texts, on="position").select("file", "line", "reason", "raw")
