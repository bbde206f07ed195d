"""The Open University Learning Analytics data set: its files joined, as known on a day of a course.

One row per student and course presentation (Kuzilek, Hlosta and Zdrahal 2017,
Scientific Data 4:170171). Nothing in a row happened after the day.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import polars as pl

from ray_jobs.data.raw import MALFORMED, Raw
from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError

TABLES = ("studentInfo", "studentRegistration", "studentAssessment", "assessments", "courses")
PRESENTATION = ["code_module", "code_presentation"]
STUDENT = [*PRESENTATION, "id_student"]
PASSED = ("Pass", "Distinction")


def recognised(sources: Sequence[Source]) -> bool:
    """Whether files are those of the data set."""
    return set(TABLES) <= {_table(source) for source in sources}


def joined(sources: Sequence[Source], day: int) -> Raw:
    """A row per student who was registered on the day, and had not left, with `passed` as label.

    Raises ContractError where a file lacks a column.
    """
    tables = {_table(s): _read(s) for s in sources if _table(s) in TABLES}
    students = tables["studentInfo"].with_row_index("line", offset=2)
    registration = tables["studentRegistration"]
    numbers = ("date_registration", "date_unregistration")
    dated = registration.with_columns(pl.col(numbers).cast(pl.Int64, strict=False))
    there = (pl.col("date_registration").fill_null(0) <= day) & (
        pl.col("date_unregistration").is_null() | (pl.col("date_unregistration") > day)
    )
    rows = students.join(dated, on=STUDENT, how="inner").filter(there)
    rows = rows.join(_work(tables, day), on=STUDENT, how="left")
    rows = rows.join(tables["courses"], on=PRESENTATION, how="left")
    passed = (
        pl.when(pl.col("final_result").is_in(PASSED)).then(pl.lit("yes")).otherwise(pl.lit("no"))
    )
    rows = rows.with_columns(
        passed.alias("passed"),
        pl.lit(_source(sources).name).alias("file"),
        pl.col("line").cast(pl.Int64),
    ).sort("line")
    places = ("file", "line")
    own = pl.all().exclude(*places, "final_result", "date_unregistration").cast(pl.String)
    return Raw(
        rows.select(own, *places), pl.DataFrame(schema=MALFORMED), _notes(tables, day, len(rows))
    )


def _work(tables: dict[str, pl.DataFrame], day: int) -> pl.DataFrame:
    """What each student had handed in by the day, of what was due by then."""
    due = tables["assessments"].with_columns(
        pl.col("date", "weight").cast(pl.Float64, strict=False)
    )
    due = due.filter(pl.col("date") <= day)
    handed = tables["studentAssessment"].join(due, on="id_assessment", how="inner")
    handed = handed.with_columns(
        pl.col("score", "date_submitted").cast(pl.Float64, strict=False)
    ).filter(pl.col("date_submitted") <= day)
    late = (pl.col("date_submitted") - pl.col("date")).alias("late")
    order = handed.with_columns(late).sort("date", "id_assessment")
    count = due.group_by(PRESENTATION).agg(pl.len().alias("assessments_due"))
    work = order.group_by(STUDENT).agg(
        pl.len().alias("assessments_done"),
        pl.col("score").mean().alias("score_mean"),
        pl.col("score").min().alias("score_min"),
        pl.col("score").last().alias("score_last"),
        pl.col("score").first().alias("score_first"),
        (pl.col("score") * pl.col("weight")).sum().alias("score_weighted"),
        pl.col("late").mean().alias("days_late_mean"),
        pl.col("late").max().alias("days_late_max"),
        pl.col("date_submitted").max().alias("day_of_last_work"),
    )
    everyone = tables["studentInfo"].select(STUDENT).join(count, on=PRESENTATION, how="left")
    done = everyone.join(work, on=STUDENT, how="left")
    zero = pl.col("assessments_due", "assessments_done").fill_null(0)
    share = pl.col("assessments_done") / pl.col("assessments_due")
    return done.with_columns(zero).with_columns(
        pl.when(pl.col("assessments_due") > 0).then(share).alias("assessments_share")
    )


def _notes(tables: dict[str, pl.DataFrame], day: int, kept: int) -> tuple[str, ...]:
    later = tables["assessments"].with_columns(pl.col("date").cast(pl.Float64, strict=False))
    later = later.filter(pl.col("date").is_null() | (pl.col("date") > day))
    left = len(tables["studentInfo"]) - kept
    absent = (
        f"as known on day {day} of each course (columns.day); {left} students who had left by "
        "then, or had not yet come, are no rows"
    )
    later_known = (
        "left out, since known only afterwards: final_result, date_unregistration, and the scores "
        f"of {len(later)} of {len(tables['assessments'])} assessments due after day {day}"
    )
    return absent, later_known


def _table(source: Source) -> str:
    return source.name.split(".")[0]


def _source(sources: Sequence[Source]) -> Source:
    return next(source for source in sources if _table(source) == "studentInfo")


def _read(source: Source) -> pl.DataFrame:
    try:
        return pl.read_csv(io.BytesIO(source.read()), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ContractError(
            f"{source.url} is no table: {error}; deliver it as it was published"
        ) from error
