"""Of who is erased nothing is left in what services keep, and nothing is written again."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest

from ray_jobs.data.erasure import Erasure
from ray_jobs.errors import StoreError
from ray_jobs.serving import forgetting, journal, outcomes
from ray_jobs.serving.forgetting import Erased, forget
from ray_jobs.serving.surface import Surface
from tests.feedback_parts import kept, predicted
from tests.surface_parts import (
    KEY,
    SERVICE,
    Ask,
)  # fmt: skip


def test_who_is_erased_is_gone_from_what_services_keep(
    app: Surface, ask: Ask, tmp_path: Path
) -> None:
    for name in ("Ada", "Ben"):
        told = predicted(ask, learner=name)
        ask("POST", "v1/feedback", {"prediction_id": told["prediction_id"], "outcomes": [1]})
    assert app.house.journal
    app.house.journal.flush()
    log = outcomes.as_log(str(tmp_path), SERVICE, outcomes.gathered(str(tmp_path), SERVICE))
    assert forget(str(tmp_path), KEY.alias("Ada")) == 2
    for name in ("feedback", "predictions"):
        assert set(kept(tmp_path, name)["learner"]) == {KEY.alias("Ben")}
    assert not Path(log).exists()
    assert forget(str(tmp_path), KEY.alias("Ada")) == 0


def erased(store: Path, learner: str) -> None:
    """All of an erasure; the time between its halves has passed."""
    erasure = Erasure(learner, str(store), KEY)
    erasure.rewrite()
    erasure.remove()


def whose(folder: Path) -> set[str | None]:
    """Who is in what services keep."""
    files = [f for name in ("feedback", "predictions") for f in (folder / name).rglob("*.parquet")]
    return {learner for file in files for learner in pl.read_parquet(file)["learner"]}


def test_of_who_was_erased_nothing_is_written_again(app: Surface, ask: Ask, tmp_path: Path) -> None:
    ids = [predicted(ask, learner=name)["prediction_id"] for name in ("Ada", "Ben")]
    ids.append(predicted(ask)["prediction_id"])
    erased(tmp_path, "Ada")
    for id_ in ids:
        assert ask("POST", "v1/feedback", {"prediction_id": id_, "outcomes": [1]}).is_success
    assert app.house.journal
    app.house.journal.flush()
    assert whose(tmp_path) == {KEY.alias("Ben"), None}
    assert len(kept(tmp_path, "feedback")) == len(kept(tmp_path, "predictions")) == 2
    assert len(list((tmp_path / "feedback").rglob("*.parquet"))) == 2, "not even for a moment"


def test_a_writer_looks_at_who_was_erased_now_and_then_and_not_while_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pl.DataFrame({"learner": [KEY.alias("Ada"), None]})
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    writer = Erased(str(tmp_path), KEY)
    assert writer.overtaken, "it has not looked yet"
    assert len(writer.others(rows)) == 2
    erased(tmp_path, "Ada")
    clock[0] += forgetting.LOOK_S / 2
    assert len(writer.others(rows)) == 2, "this soon it asks nobody"
    clock[0] += forgetting.LOOK_S
    assert writer.others(rows)["learner"].to_list() == [None]
    clock[0] += forgetting.LOOK_S + 0.1

    def away(_: str) -> dict[str, int]:
        raise StoreError("away")

    monkeypatch.setattr("ray_jobs.store.sizes", away)
    with pytest.raises(StoreError, match="away"):
        writer.others(rows)


def test_what_takes_so_long_to_write_that_an_erasure_missed_it_is_taken_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    put = journal._put

    def slow(uri: str, rows: pl.DataFrame) -> None:
        if gone:
            erased(tmp_path, gone.pop())
            clock[0] += 2 * forgetting.KNOWN_S
        put(uri, rows)

    gone = ["Ben", "Ada"]
    monkeypatch.setattr(journal, "_put", slow)
    rows = pl.DataFrame({"learner": [KEY.alias(name) for name in ("Ada", "Ben", "Cleo")]})
    journal.write(str(tmp_path), "feedback", SERVICE, rows, Erased(str(tmp_path), KEY))
    assert whose(tmp_path) == {KEY.alias("Cleo")}
