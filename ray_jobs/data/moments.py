"""Moments as logs write them, as unix seconds."""

from __future__ import annotations

import polars as pl

LATEST = 4_102_444_800.0  # 2100-01-01: a later second is milliseconds or a slip
MINUTES = "%Y-%m-%dT%H:%M"
ZONED = (f"{MINUTES}:%S%.f%#z", f"{MINUTES}%#z")
NAIVE = (f"{MINUTES}:%S%.f", MINUTES)
DAY = "%Y-%m-%d"


def seconds(time: pl.Expr) -> pl.Expr:
    """Unix seconds of a number of them, or of ISO 8601; without a zone that is UTC."""
    iso = time.str.replace(" ", "T", literal=True)
    zoned = [iso.str.to_datetime(f, strict=False, time_unit="us", time_zone="UTC") for f in ZONED]
    naive = [iso.str.to_datetime(f, strict=False, time_unit="us") for f in NAIVE]
    day = iso.str.to_date(DAY, strict=False).cast(pl.Datetime("us"))
    moments = [moment.dt.epoch("us") / 1e6 for moment in (*zoned, *naive, day)]
    return pl.coalesce(time.cast(pl.Float64, strict=False), *moments)
