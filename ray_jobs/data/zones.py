"""Time zones by name, apart from reading times: who only names one need not read again."""

from __future__ import annotations

import polars as pl

from ray_jobs.errors import UsageError


def check_zone(zone: str) -> None:
    """Raise UsageError where there is no such time zone."""
    try:
        pl.Series([0]).cast(pl.Datetime("us")).dt.replace_time_zone(zone)
        known = bool(zone)
    except pl.exceptions.PolarsError:
        known = False
    if not known:
        raise UsageError(
            f"columns.zone={zone}: there is no such time zone; expected a name such as "
            "Europe/Berlin or UTC"
        )
