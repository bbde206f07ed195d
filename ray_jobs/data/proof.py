"""The proof that nothing leaks between splits: counted once more, from the tables themselves.

It trusts neither the division nor its counts; only what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

import polars as pl

from ray_jobs.data.tables import each, parts, scan
from ray_jobs.data.tally import TIME

AT_ONCE = 4_000_000  # groups in memory
TEST = "test"


@dataclass(frozen=True)
class Proof:
    """What was counted of three tables."""

    groups: dict[str, int]  # by split
    shared: int  # groups that stand in more than one
    cut: float | None  # unix seconds; None: time is not divided
    latest: float | None  # time of a row that is learnt from; None without a cut
    earliest: float | None  # time of a test row that is scored

    @property
    def fault(self) -> str:
        """What leaks, if anything."""
        if self.shared:
            return f"{self.shared} groups stand in more than one split"
        if self.cut is None:
            return ""
        if self.latest is None or self.earliest is None:
            return "rows lack the times that they are divided by"
        if not self.latest <= self.cut < self.earliest:
            return (
                f"training ends at {self.latest}, testing begins at {self.earliest}, and the cut "
                f"is at {self.cut}"
            )
        return ""


def prove(tables: Mapping[str, str], *, group: str, cut: float | None, groups: int) -> Proof:
    """Count over the tables of the splits, by name; about so many `groups` are expected."""
    shares = max(1, ceil(groups / AT_ONCE))
    counts = [_counts(tables, group, share, shares) for share in range(shares)]
    learnt = [uri for name, uri in tables.items() if name != TEST]
    latest, earliest = [], []
    if cut is not None:
        latest = _times(learnt, pl.col(TIME).max())
        earliest = _times([tables[TEST]], pl.col(TIME).filter(pl.col("scored")).min())
    return Proof(
        groups={name: sum(found[name] for found, _ in counts) for name in tables},
        shared=sum(shared for _, shared in counts),
        cut=cut,
        latest=max(latest, default=None),
        earliest=min(earliest, default=None),
    )


def _counts(
    tables: Mapping[str, str], group: str, share: int, shares: int
) -> tuple[dict[str, int], int]:
    """Groups of each split, and of several, among one of equal shares of all groups."""
    mine = pl.col(group).cast(pl.String).hash() % shares == share

    def read(of: tuple[str, str]) -> pl.DataFrame:
        name, uri = of
        found = scan(uri).select(group).filter(mine).unique().collect()
        return found.with_columns(pl.lit(name).alias("split"))

    files = [(name, part) for name, uri in tables.items() for part in parts(uri)]
    found = pl.concat(each(read, files)).unique()
    of = dict(found.group_by("split").len().iter_rows())
    splits = found.group_by(group).len()
    return {name: of.get(name, 0) for name in tables}, int((splits["len"] > 1).sum())


def _times(uris: Iterable[str], edge: pl.Expr) -> list[float]:
    """The edge of the times of each part that has any."""
    files = [part for uri in uris for part in parts(uri)]
    found = each(lambda part: scan(part).select(edge).collect().item(), files)
    return [time for time in found if time is not None]
