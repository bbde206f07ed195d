"""The table every stage agrees on: one row per answer a learner gave.

Ingestion writes it, cleaning guarantees it, training reads it, and the HTTP
API speaks the same words. Change a column here or nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ray_jobs.data.zones import check_zone
from ray_jobs.errors import UsageError

PROTOCOLS = ("N", "K1")
EXTRA = ("response_time", "about")  # columns of raw rows where some are named for them


@dataclass(frozen=True)
class Columns:
    """Which source column holds what; empty means: look for the usual names."""

    learner: str = ""  # whose answer
    item: str = ""  # the exercise
    skills: str = ""  # what it practises
    correct: str = ""  # 0 to 1, or true and false
    time: str = ""  # unix seconds or ISO 8601
    response_time: str = ""  # seconds it took, or milliseconds where the name has `ms`; xAPI: any
    about: str = ""  # columns that say more of an answer or its learner: gender,region
    values: str = ""  # what correct may say: richtig=1,halb=0.5
    skill_separator: str = ";"  # between several skills of one answer
    zone: str = "UTC"  # of times that name none
    protocol: str = "N"  # N, or K1: a row per skill of an answer, for comparison with papers alone

    def __post_init__(self) -> None:
        """Raises UsageError for no time zone, no protocol, or a value that is no share."""
        check_zone(self.zone)
        if self.protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise UsageError(f"columns.protocol={self.protocol!r}: expected one of {known}")
        _ = self.meant

    @property
    def told(self) -> list[str]:
        """The columns that `about` names."""
        return list(dict.fromkeys(name.strip() for name in self.about.split(",") if name.strip()))

    @property
    def meant(self) -> dict[str, float]:
        """What words of `correct` are meant to be, between 0 and 1."""
        pairs = [pair.rpartition("=") for pair in self.values.split(",") if pair.strip()]
        try:
            meant = {word.strip(): float(number) for word, _, number in pairs}
        except ValueError:
            meant = {"": 0.0}
        if not all(word and 0 <= credit <= 1 for word, credit in meant.items()):
            raise UsageError(
                f"columns.values={self.values!r}: expected words with what they are worth "
                "between 0 and 1, such as richtig=1,falsch=0"
            )
        return meant


LONGEST_NAME = 512  # characters of an item or a skill, here and in requests
MOST_SKILLS = 64  # of one answer

CLEAN = pl.Schema(
    {
        "learner": pl.String(),  # pseudonym
        "item": pl.String(),
        "skills": pl.List(pl.String()),  # a set: sorted, no repeats, may be empty; K1: one at most
        "correct": pl.Float32(),  # 0..1; partial credit allowed
        "time": pl.Float64(),  # unix seconds; null when the log has no times
        # order of a learner's answers, with times that of time, item; K1: equal for rows of one
        "position": pl.Int64(),
        "bucket": pl.UInt64(),  # public hash of the original learner id
        "split": pl.String(),  # train, validation or test as delivered; null when it was not
        "scored": pl.Boolean(),  # False: context only, neither trained on nor evaluated
        "response_s": pl.Float32(),  # seconds until the answer; null when unknown
        "about": pl.List(pl.String()),  # what figures are told apart by: name=value, by name
    }
)
