"""What was predicted can be looked back at, and slows nobody down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from ray_jobs.errors import StoreError
from ray_jobs.serving import journal, receipt
from ray_jobs.serving.journal import Entry, Journal
from ray_jobs.serving.surface import Surface
from tests.feedback_parts import kept, predicted
from tests.surface_parts import (
    KEY,
    SERVICE,
    Ask,
)  # fmt: skip


def test_each_prediction_is_in_the_log_with_what_led_to_it(
    app: Surface, ask: Ask, tmp_path: Path
) -> None:
    told = predicted(ask, 2, learner="Ada")
    ask("POST", "v1/mastery", {"history": [], "skills": ["adding"]})
    assert app.house.journal
    app.house.journal.flush()
    rows = kept(tmp_path, "predictions")
    mine = rows.filter(pl.col("row").is_not_null())
    assert len(mine) == 2
    assert [orjson.loads(p) for p in mine["prediction"]] == pytest.approx(
        [p["probability"] for p in told["predictions"]], abs=1e-6
    )
    assert set(rows["request"]) == {"r-1"}
    assert set(mine["learner"]) == {KEY.alias("Ada")}
    assert set(rows["version"]) == {"7"}
    assert set(rows["lineage"]) == {"07" * 16}
    (outcome,) = set(mine["id"])
    ask("POST", "v1/feedback", {"prediction_id": told["prediction_id"], "outcomes": [1]})
    assert kept(tmp_path, "feedback")["id"].to_list() == [outcome], "the two can be joined"


def test_under_pressure_rows_are_dropped_and_counted_rather_than_requests_slowed(
    app: Surface, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.house.journal
    log = app.house.journal
    log.most = 5

    def away(*_: Any) -> None:
        raise StoreError("away")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "write", away)
        for _ in range(8):
            predicted(ask)
        log.flush()
        assert (len(log.entries), log.dropped, log.written) == (5, 3, 0)
        predicted(ask)
    log.flush()
    assert (len(log.entries), log.dropped, log.written) == (0, 4, 5)
    assert len(kept(tmp_path, "predictions")) == 5


def test_what_waits_is_bounded_by_its_size_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {"service": SERVICE, "version": "7", "learner": None}
    note = receipt.made(KEY, **said, predictions=[0.5], rows=[{"item": "x" * 1000}])
    log = Journal(str(tmp_path), SERVICE, "l", most_bytes=5_000)

    def away(*_: Any) -> None:
        raise StoreError("away")

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(journal, "write", away)
            for _ in range(8):
                log.add(Entry(note.encoded(), "r", "k"))
                log.flush()
        assert len(log.entries) == 5
        log.flush()
    assert (log.written, log.dropped) == (10, 6)


def test_what_waits_is_written_when_a_replica_leaves(
    app: Surface, ask: Ask, tmp_path: Path
) -> None:
    assert app.house.journal
    app.house.journal.start()
    predicted(ask)
    app.house.journal.stop()
    assert len(kept(tmp_path, "predictions")) == 1
