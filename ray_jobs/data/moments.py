"""Moments as logs write them, as unix seconds."""

from __future__ import annotations

from functools import partial

import polars as pl

LATEST = 4_102_444_800.0  # 2100-01-01: a later second is milliseconds or a slip
MINUTES = "%Y-%m-%dT%H:%M"
ZONED = (f"{MINUTES}:%S%.f%#z", f"{MINUTES}%#z")
NAIVE = (f"{MINUTES}:%S%.f", MINUTES)
DAY = "%Y-%m-%d"


def seconds(time: pl.Expr, zone: str = "UTC") -> pl.Expr:
    """Unix seconds of a number of them, or of ISO 8601; what names no zone is in this one.

    An hour that the end of summer time gives twice is the first; one that its begin
    leaves out is null.
    """
    return time.map_batches(partial(_seconds, zone=zone), return_dtype=pl.Float64)


def _seconds(texts: pl.Series, zone: str) -> pl.Series:
    numbers = texts.cast(pl.Float64, strict=False)
    if numbers.null_count() == texts.null_count():
        return numbers
    words = texts.filter(numbers.is_null()).unique().drop_nulls()
    known = words.to_frame("text").with_columns(_moment(pl.col("text"), zone).alias("moment"))
    joined = texts.to_frame("text").join(known, on="text", how="left", maintain_order="left")
    return numbers.fill_null(joined["moment"])


def _moment(time: pl.Expr, zone: str) -> pl.Expr:
    iso = time.str.replace(" ", "T", literal=True)
    zoned = [iso.str.to_datetime(f, strict=False, time_unit="us", time_zone="UTC") for f in ZONED]
    naive = [iso.str.to_datetime(f, strict=False, time_unit="us") for f in NAIVE]
    day = iso.str.to_date(DAY, strict=False).cast(pl.Datetime("us"))
    local = [
        moment.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        for moment in (*naive, day)
    ]
    return pl.coalesce(moment.dt.epoch("us") / 1e6 for moment in (*zoned, *local))
