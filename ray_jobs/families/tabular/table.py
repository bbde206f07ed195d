"""The table of cases: one row each, its label, and whatever else is known of it.

Columns of the log keep their names behind `x:`, so that none can be taken for
one of ours. Numbers are Float64, categories text; what is missing is null.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ray_jobs.data.zones import check_zone

PREFIX = "x:"
KINDS = ("auto", "binary", "classes", "number")


@dataclass(frozen=True)
class Columns:
    """Which source column means what; empty means: look for the usual names, if it has any."""

    label: str = ""  # what is predicted
    kind: str = "auto"  # of label: binary, classes or number; auto: by its values
    group: str = ""  # rows of one group, a learner say, lie in one split; else each row is its own
    time: str = ""  # unix seconds or ISO 8601, for split.until
    ignore: str = ""  # columns to leave out, commas between
    allow: str = ""  # columns that are known in time, although they tell the label
    zone: str = "UTC"  # of times that name none
    day: int = 0  # of a course, where the data tells when a thing became known: predict then

    def __post_init__(self) -> None:
        """Raises UsageError where there is no such time zone."""
        check_zone(self.zone)

    @property
    def ignored(self) -> list[str]:
        return names(self.ignore)

    @property
    def allowed(self) -> list[str]:
        return names(self.allow)


# The columns beside the features; `label` is Float64 where a number is predicted.
OURS = pl.Schema(
    {
        "group": pl.String(),  # pseudonym
        "label": pl.String(),
        "time": pl.Float64(),  # unix seconds; null when the log has no times
        "position": pl.Int64(),  # order in the delivery
        "bucket": pl.UInt64(),  # public hash of the original group
        "split": pl.String(),  # train, validation or test as delivered; null when it was not
        "scored": pl.Boolean(),  # False: neither trained on nor evaluated
        "file": pl.String(),  # where the row was first seen
    }
)


def names(text: str) -> list[str]:
    """Column names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def features(table: pl.DataFrame) -> list[str]:
    """The log's own columns of a table, as they are called there."""
    return [name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX)]
