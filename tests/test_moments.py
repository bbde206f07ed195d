"""What is promised of times: read as people write them, in the zone that they were written in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data.moments import seconds
from ray_jobs.errors import UsageError
from ray_jobs.families import families, family

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)


def read(texts: list[str | None], zone: str = "UTC") -> list[float | None]:
    frame = pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)})
    return frame.select(seconds(pl.col("t"), zone))["t"].to_list()


@settings(deadline=None)
@given(st.lists(MOMENTS, min_size=1, max_size=5), ZONES)
def test_a_moment_without_a_zone_is_one_of_the_zone_that_is_named(
    moments: list[datetime], zone: str
) -> None:
    for moment, found in zip(moments, read([m.isoformat() for m in moments], zone), strict=True):
        local = moment.replace(tzinfo=ZoneInfo(zone))
        exists = local.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == moment
        assert found == (local.timestamp() if exists else None)


@settings(deadline=None)
@given(MOMENTS, ZONES, st.integers(-14, 14))
def test_a_zone_that_a_moment_names_itself_counts(moment: datetime, zone: str, hours: int) -> None:
    text = f"{moment.isoformat(sep=' ')}{'-' if hours < 0 else '+'}{abs(hours):02d}:00"
    utc = moment.replace(tzinfo=UTC) - timedelta(hours=hours)
    numbers: list[str | None] = [text, str(utc.timestamp()), None]
    assert read(numbers, zone) == [utc.timestamp(), utc.timestamp(), None]


def test_an_hour_that_comes_twice_is_the_first_and_one_that_is_left_out_is_none() -> None:
    twice, never = "2026-10-25T02:30:00", "2026-03-29T02:30:00"
    assert read([twice, never], "Europe/Berlin") == [1_792_888_200.0, None]


@pytest.mark.parametrize("kind", families())
def test_a_zone_that_there_is_not_is_refused_by_every_family(kind: str) -> None:
    recipe = next(iter(family(kind).recipes.values()))()
    assert recipe.overridden(**{"columns.zone": "Asia/Tokyo"}).columns.zone == "Asia/Tokyo"
    for wrong in ("Mars/Olympus", ""):
        with pytest.raises(UsageError, match=rf"columns\.zone={wrong}: .*Europe/Berlin"):
            recipe.overridden(**{"columns.zone": wrong})
