"""Raw rows to answers: the rules of the answer table, each a name and a polars expression.

Repeated deliveries go, contradictions are set apart, and rows that are one
answer under several skills become one (under protocol K1: stay, or become, a
row for each). Every bad row keeps its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import orjson
import polars as pl

from ray_jobs.data.clean import Cleaned
from ray_jobs.data.moments import LATEST, seconds
from ray_jobs.families.knowledge.table import CLEAN, EXTRA, LONGEST_NAME, MOST_SKILLS, Columns

RIGHT = ("true", "t", "yes", "y", "correct", "right", "pass", "passed")
WRONG = ("false", "f", "no", "n", "incorrect", "wrong", "fail", "failed")
TRUTHS = dict.fromkeys(RIGHT, 1.0) | dict.fromkeys(WRONG, 0.0)
KEY = ("learner", "item", "time")  # one answer, in a log with times
TOO_LONG_S = 86_400.0  # that nobody thought about an answer
UNKNOWN = "response times that are no number of seconds, or beyond a day, count as unknown"
APART = "protocol K1: an answer under several skills stands as a row for each of them"


def clean(rows: pl.DataFrame, timed: bool, columns: Columns) -> Cleaned:
    """Make the clean table; the rows that break a rule come back beside it.

    Two rows are one delivery of an answer when learner, item, time, skills and
    outcome agree. A log without times cannot tell a repeat from a second try,
    so there nothing counts as repeated or contradictory.
    """
    apart = columns.protocol == "K1"
    typed = _typed(rows, columns)
    rules = _rules(timed)
    broken = pl.any_horizontal(rule.fill_null(False) for rule in rules.values())
    named = pl.coalesce(pl.when(rule).then(pl.lit(name)) for name, rule in rules.items())
    bad = typed.filter(broken).select("position", named.alias("reason"))
    good = _slim(typed.with_columns(broken.alias("broken")))
    good = _answered(good, timed, apart=apart)
    follows = pl.col("follows")
    shared = follows | follows.shift(-1, fill_value=False)
    alone, several = good.filter(~shared), good.filter(shared)  # few have company
    single, repeats = several, 0
    if timed:
        single = several.filter(pl.struct("answer", "correct", "skills").is_first_distinct())
        repeats = len(several) - len(single)
        conflict = pl.col("correct").n_unique().over("answer") > 1
        against = single.filter(conflict).select("position", pl.lit("conflict").alias("reason"))
        bad = pl.concat([bad, against])
        single = single.filter(~conflict)
    merged = _merged(single)
    table = _table(pl.concat([alone, merged]).sort("answer"), timed)
    rows = _apart(table) if apart else table
    return Cleaned(
        table=rows,
        bad=bad,
        merged=len(single) - len(merged),
        repeats=repeats,
        notes=(*((APART,) if apart else ()), *_unknown(typed)),
        expanded=len(rows) - len(table),
    )


def _typed(rows: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Rows with `credit`, `seconds` and `set` beside what these were written as."""
    lacking = [pl.lit(None, pl.String).alias(n) for n in EXTRA if n not in rows.columns]
    rows = rows.with_columns(lacking)
    sets = _skill_sets(rows["skills"], columns.skill_separator)
    rows = rows.join(sets, on="skills", how="left", nulls_equal=True, maintain_order="left")
    return rows.with_columns(
        pl.col("correct")
        .map_batches(partial(_credits, meant=columns.meant), return_dtype=pl.Float32)
        .alias("credit"),
        seconds(pl.col("time"), columns.zone).alias("seconds"),
        _response().alias("response_s"),
        _about(rows),
        about_text="about",
    )


def _response() -> pl.Expr:
    """Seconds, from a number of them or of milliseconds; null where it cannot be."""
    text = pl.col("response_time")
    number = text.str.strip_suffix(" ms").cast(pl.Float32, strict=False)
    found = number / pl.when(text.str.ends_with(" ms")).then(1000.0).otherwise(1.0)
    return pl.when(found.is_between(0.0, TOO_LONG_S)).then(found)


def _unknown(typed: pl.DataFrame) -> tuple[str, ...]:
    lost = typed["response_time"].is_not_null() & typed["response_s"].is_null()
    return (UNKNOWN,) if lost.any() else ()


def _about(rows: pl.DataFrame) -> pl.Series:
    """What else is said of each row, as name=value; of few texts, though of many rows."""
    texts = rows["about"].unique().drop_nulls()
    told = [_pairs(text) for text in texts]
    known = pl.DataFrame(
        {"about": texts, "told": told}, schema_overrides={"told": pl.List(pl.String)}
    )
    found = rows.select("about").join(known, on="about", how="left", maintain_order="left")
    return found["told"].alias("about")


def _pairs(text: str) -> list[str] | None:
    """What a JSON object says; null where somebody who mended a row wrote something else."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    return [f"{name}={value}" for name, value in said.items() if value is not None]


def _slim(typed: pl.DataFrame) -> pl.DataFrame:
    """The rows that are not `broken`, and of their columns those in their types."""
    slim = typed.select(
        "learner", "item", "bucket", "position", "split", "broken",
        pl.col("credit").alias("correct"),
        pl.col("seconds").alias("time"),
        pl.col("set").alias("skills"),
        "response_s", "about",
    )  # fmt: skip
    return slim.filter(~pl.col("broken")).drop("broken")


def _credits(texts: pl.Series, meant: Mapping[str, float]) -> pl.Series:
    """Outcomes as numbers; what is none is null. What a word is `meant` to be, it is."""
    if meant:
        texts = texts.replace({word: str(credit) for word, credit in meant.items()})
    numbers = texts.cast(pl.Float32, strict=False)
    if numbers.null_count() == texts.null_count():
        return numbers
    words = texts.str.to_lowercase()
    numbers = numbers.fill_null(words.replace_strict(TRUTHS, default=None, return_dtype=pl.Float32))
    comma = texts.str.replace(",", ".", literal=True).cast(pl.Float32, strict=False)
    percent = texts.str.strip_suffix("%").cast(pl.Float32, strict=False) / 100
    return numbers.fill_null(comma).fill_null(percent)


def _skill_sets(skills: pl.Series, separator: str) -> pl.DataFrame:
    """Each text of `skills` with its `set` and the `longest` of it: far fewer than rows."""
    tags = pl.col("skills").str.split(separator).list.eval(pl.element().str.strip_chars())
    named = tags.list.eval(pl.element().filter(pl.element() != ""))
    texts = skills.unique().to_frame("skills")
    sets = texts.with_columns(named.list.unique().list.sort().fill_null([]).alias("set"))
    longest = pl.col("set").list.eval(pl.element().str.len_chars()).list.max()
    return sets.with_columns(longest.fill_null(0).alias("longest"))


def _rules(timed: bool) -> dict[str, pl.Expr]:
    """Reason to what breaks it, the first that applies first."""
    credit, time = pl.col("credit"), pl.col("seconds")
    rules = {
        "missing_learner": pl.col("learner").is_null(),
        "missing_item": pl.col("item").is_null(),
        "long_item": pl.col("item").str.len_chars() > LONGEST_NAME,
        "too_many_skills": pl.col("set").list.len() > MOST_SKILLS,
        "long_skill": pl.col("longest") > LONGEST_NAME,
        "missing_correct": pl.col("correct").is_null(),
        "invalid_about": pl.col("about_text").is_not_null() & pl.col("about").is_null(),
        "invalid_correct": credit.is_null() | credit.is_nan() | ~credit.is_between(0, 1),
    }
    if timed:
        rules["missing_time"] = pl.col("time").is_null()
        rules["invalid_time"] = time.is_null() | time.is_nan() | ~time.is_between(0, LATEST)
    return rules


def _answered(rows: pl.DataFrame, timed: bool, *, apart: bool) -> pl.DataFrame:
    """Rows by learner in their order, with the number of the `answer` they are of.

    With times, rows of one learner, item and time are one answer. Without, a row is
    of the answer before it when it `follows` with the same item and outcome under
    another skill; the same skill as the row before is a new try. Where rows are to
    stand `apart`, those without times do so as they came.
    """
    same = KEY if timed else ("learner", "item", "correct")
    order = ["time", "item"] if timed else ["position"]
    if timed and rows["response_s"].null_count() < len(rows):
        order.append("response_s")  # of two deliveries of an answer that differ in it
    rows = _in_order(rows, order)
    follows = pl.all_horizontal(pl.col(n).eq_missing(pl.col(n).shift()) for n in same)
    if not timed:
        follows &= pl.col("skills").ne_missing(pl.col("skills").shift()) & (not apart)
    first = pl.int_range(pl.len()) == 0
    rows = rows.with_columns((follows & ~first).alias("follows"))
    return rows.with_columns((~pl.col("follows")).cum_sum().alias("answer"))


def _in_order(rows: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """Each learner's rows together and in an order; learners in that of their buckets.

    That order is the same under every key, and numbers are sorted faster than names.
    """
    rows = rows.sort("bucket", *order, maintain_order=True)
    changes = rows.select(
        pl.col(n).ne_missing(pl.col(n).shift()).sum() for n in ("bucket", "learner")
    )
    if changes["learner"][0] > changes["bucket"][0]:  # two learners share a bucket
        return rows.sort("bucket", "learner", *order, maintain_order=True)
    return rows


def _merged(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per answer: rows that differ in nothing but their skill are one."""
    others = [pl.col(c).first() for c in rows.columns if c not in {"answer", "skills"}]
    skills = pl.col("skills").list.explode(keep_nulls=False, empty_as_null=False)
    groups = rows.group_by("answer", maintain_order=True)
    return groups.agg(skills.unique().sort(), *others).select(rows.columns)


def _apart(table: pl.DataFrame) -> pl.DataFrame:
    """One row per skill of an answer, by name, and one for an answer without any."""
    one = pl.concat_list("skills").list.drop_nulls()
    return table.explode("skills", empty_as_null=True).with_columns(one)


def _table(answers: pl.DataFrame, timed: bool) -> pl.DataFrame:
    """So numbered that with times the order of delivery leaves no trace, nor do outcomes."""
    row = pl.int_range(pl.len())
    first = pl.when(pl.col("learner") != pl.col("learner").shift()).then(row).forward_fill()
    place = row - first.fill_null(0)
    table = answers.with_columns(
        (place if timed else pl.col("position")).alias("position"),
        (pl.col("time") if timed else pl.lit(None)).alias("time"),
        pl.lit(True).alias("scored"),
    )
    return table.select(pl.col(name).cast(kind) for name, kind in CLEAN.items())
