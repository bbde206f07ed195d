"""The stage that describes: what it finds in a run's tables, and what it compares them with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ray_jobs import manifest, store
from ray_jobs.data import profile
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.history import named, reports
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.split import SplitTable
from ray_jobs.data.tables import parts, read_parquet, write_parquet
from ray_jobs.errors import StoreError
from ray_jobs.serving.release import Release
from tasks import dataplots
from tasks import describe as describing
from tasks.describe import CHAMPION, PREVIOUS, Described, accounts, describe, write
from tasks.prepare import clean, ingest, split
from tasks.run import Run
from tests.stages_parts import planned, school


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take a second, and are looked at elsewhere."""
    monkeypatch.setattr(dataplots, "draw", lambda _: {})


@dataclass(frozen=True)
class Data:
    """A run's data on the store, to be described."""

    run: Run
    snapshot: Snapshot
    table: CleanTable
    splits: SplitTable

    @classmethod
    def of(cls, folder: Path, **settings: str) -> Data:
        run = planned(folder, **settings)
        snapshot, _ = ingest.fn(run)
        table, _ = clean.fn(run, snapshot)
        return cls(run, snapshot, table, split.fn(run, table)[0])

    def described(self, champion: Release | None = None) -> tuple[Described, bool]:
        return describe.fn(self.run, self.snapshot, self.table, self.splits, champion)

    def document(self, champion: Release | None = None) -> dict[str, Any]:
        found: dict[str, Any] = store.read_json(self.described(champion)[0].document)
        return found

    def drift(self, against: str, champion: Release | None = None) -> dict[str, Any]:
        (found,) = (d for d in self.document(champion)["drift"] if d["against"] == against)
        return dict(found)


def trained_on(digest: str) -> Release:
    card = {"data": {"digest": digest}}
    return Release("knowledge-smoke", "knowledge", "l", "/model", "d", [], card, version="3")


def deliver(folder: Path, *numbers: int, **settings: str) -> Data:
    """The data of a run on some of the four files of a school alone."""
    logs, drawer = folder / "logs", folder / "drawer"
    drawer.mkdir(exist_ok=True)
    for path in [*logs.iterdir()]:
        path.rename(drawer / path.name)
    for number in numbers:
        name = f"simulated-{number}.csv"
        (drawer / name).rename(logs / name)
    return Data.of(folder, **settings)


def test_every_row_is_accounted_for_and_the_splits_are_proved_apart(tmp_path: Path) -> None:
    school(tmp_path)
    data = Data.of(tmp_path, **{"split.until": "0.6"})
    told, kept = data.document(), read_parquet(data.table.table)
    accounts, profile, proof = told["accounts"], told["profile"], told["proof"]
    bad = sum(accounts["quarantined"].values())
    assert bad > 0
    assert accounts["read"] == accounts["kept"] + bad + accounts["merged"] + accounts["repeats"]
    assert sum(file["rows"] + file["malformed"] for file in told["files"]) == accounts["read"]
    assert (profile["rows"], profile["groups"]) == (len(kept), kept["learner"].n_unique())
    assert profile["keys"]["item"]["count"] == kept["item"].n_unique()
    assert profile["columns"]["correct"]["numbers"]["mean"] == pytest.approx(kept["correct"].mean())
    assert (proof["groups"], proof["shared"], proof["leaks"]) == (data.splits.groups, 0, "")
    assert proof["latest"] <= proof["cut"] < proof["earliest"]


def test_nobody_is_named_in_any_file_of_it(tmp_path: Path) -> None:
    school(tmp_path)
    data = Data.of(tmp_path)
    data.described()
    people = read_parquet(data.table.table)["learner"].unique().to_list()
    home = Path(data.run.store)
    files = [p for stage in ("describe", "profile") for p in home.glob(f"stages/{stage}/*/*")]
    assert {path.name for path in files} >= {"report.html", "report.json", "profile.json"}
    for path in files:
        text = path.read_text()
        assert not any(name in text for name in people), path


def test_it_is_said_once_and_for_all_until_something_changes(tmp_path: Path) -> None:
    school(tmp_path)
    data = Data.of(tmp_path)
    first, cached = data.described()
    assert not cached
    assert data.described() == (first, True)
    mine = trained_on(data.table.digest)
    assert data.described(mine) == (first, True), "its own champion is nobody else's data"
    other, cached = data.described(trained_on("f" * 64))
    assert (other.uri == first.uri, cached) == (False, False)
    assert reports(data.run.store, data.snapshot) == sorted([first.page, other.page])


def test_another_look_makes_the_page_anew_and_measures_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    school(tmp_path)
    data = Data.of(tmp_path)
    data.described()
    monkeypatch.setattr(describing, "LOOKS", (describing,))
    monkeypatch.setattr(profile, "profile", None)
    assert not data.described()[1]


def test_a_grown_log_is_compared_with_what_it_grew_out_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    school(tmp_path, learners=120)
    before = deliver(tmp_path, 1, 2)
    assert before.drift(PREVIOUS)["why"] == (
        "none of knowledge-smoke was described under this protocol before this one"
    )
    now = deliver(tmp_path, 1, 2, 3, 4)
    assert named(now.run.store, now.snapshot.name).parent == before.snapshot.name
    caplog.set_level(logging.INFO)
    found = now.drift(PREVIOUS, trained_on(before.table.digest))
    assert (found["name"], found["why"]) == (before.snapshot.name, "")
    shown = {drift["name"]: drift for drift in found["drifts"]}
    assert {"item", "skills", "correct", "rows per learner"} <= set(shown)
    assert shown["rows per learner"]["index"] > 0.1, "there are twice as many"
    assert shown["time"]["why"] == "times move on by themselves"
    theirs = now.drift(CHAMPION, trained_on(before.table.digest))
    assert theirs["drifts"] == found["drifts"]
    assert f"describe: drift against {PREVIOUS}, {before.snapshot.name}" in caplog.text


def test_a_log_is_compared_with_rows_under_its_own_protocol(tmp_path: Path) -> None:
    school(tmp_path)
    under = {name: {"columns.protocol": name} for name in ("N", "K1")}
    before = {name: deliver(tmp_path, 1, 2, **under[name]) for name in under}
    before["N"].described()
    assert "none of" in before["K1"].drift(PREVIOUS)["why"], "the same snapshot as other rows"
    for name, settings in under.items():
        now = deliver(tmp_path, 1, 2, 3, **settings)
        found = describing.previous(now.run, now.snapshot).table
        assert found is not None
        assert found.content == before[name].table.content
    champion = trained_on(before["N"].table.digest)
    now = deliver(tmp_path, 1, 2, 3, 4)
    theirs = describing.trained_on(now.run, now.table, champion).table
    assert theirs is not None
    assert theirs.content == before["N"].table.content


def test_what_a_log_grew_out_of_comes_before_what_came_last(tmp_path: Path) -> None:
    school(tmp_path)
    half, other, grown = (deliver(tmp_path, *n) for n in ((1, 2), (3,), (1, 2, 3)))
    assert half.drift(PREVIOUS)["name"] == ""
    assert other.drift(PREVIOUS)["name"] == half.snapshot.name
    assert grown.drift(PREVIOUS)["name"] == half.snapshot.name, "the largest that it holds"
    assert deliver(tmp_path, 4).drift(PREVIOUS)["name"] == grown.snapshot.name, "the last before"


def test_another_log_of_the_service_is_compared_and_one_of_another_service_is_not(
    tmp_path: Path,
) -> None:
    school(tmp_path)
    first = Data.of(tmp_path, service="algebra")
    first.described()
    for path in (tmp_path / "logs").iterdir():
        path.unlink()
    school(tmp_path, seed=9)
    assert Data.of(tmp_path, service="algebra").drift(PREVIOUS)["name"] == first.snapshot.name
    assert "none of geometry" in Data.of(tmp_path, service="geometry").drift(PREVIOUS)["why"]


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    school(tmp_path)
    before = deliver(tmp_path, 1, 2)
    before.described()
    now = deliver(tmp_path, 1, 2, 3, 4)
    gone = "no report under this protocol on its data, ffffffffffff, lies in this store"
    assert now.drift(CHAMPION, trained_on("f" * 64))["why"] == gone
    assert now.drift(CHAMPION)["why"] == "no champion was trained on other data"
    store.remove(before.table.table)
    for kept in Path(now.run.store).glob("stages/profile/*/profile.json"):
        kept.unlink()
    found = now.drift(PREVIOUS, trained_on("e" * 64))
    assert (found["why"], found["drifts"]) == (f"no table at {before.table.table}", [])


def test_a_snapshot_of_an_earlier_lyceum_stops_no_run(tmp_path: Path) -> None:
    school(tmp_path)
    data = Data.of(tmp_path)
    old = store.join(data.run.store, "snapshots", "0" * 16)
    store.write_json(store.join(old, "manifest.json"), {"uri": old})
    assert "was written by an earlier Lyceum" in data.drift(PREVIOUS)["why"]


def test_a_report_of_another_form_is_left_alone(tmp_path: Path) -> None:
    school(tmp_path)
    data = Data.of(tmp_path)
    manifest.once(data.run.store, "describe", {}, lambda _: {"service": "knowledge-smoke"})
    assert data.document(trained_on("f" * 64))["drift"][1]["why"].startswith("no report under")


def test_a_leak_in_the_tables_stops_the_run_and_leaves_no_report(tmp_path: Path) -> None:
    school(tmp_path)
    data = Data.of(tmp_path)
    train, test = (parts(data.splits.table(name))[0] for name in ("train", "test"))
    guest = read_parquet(train).head(1)
    write_parquet(test, pl.concat([read_parquet(test), guest]))
    with pytest.raises(StoreError, match="leak: 1 groups stand in more than one split"):
        data.described()
    assert reports(data.run.store, data.snapshot) == []


def test_items_with_the_names_of_tags_do_no_harm(tmp_path: Path) -> None:
    school(tmp_path, dirt=0.0)
    for path in (tmp_path / "logs").iterdir():
        path.write_text(path.read_text().replace("addition", "<script>alert(1)</script>"))
    described, _ = Data.of(tmp_path).described()
    page = store.read_bytes(described.page).decode()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_refused_data_has_a_report_of_its_accounts(tmp_path: Path) -> None:
    school(tmp_path, dirt=0.1)
    data = Data.of(tmp_path)
    why = "151 of 1050 rows are bad"
    table = replace(data.table, refused=why)
    described = write(accounts(data.run, data.snapshot, table), uri=str(tmp_path / "told"))
    told = store.read_json(described.document)
    assert (told["refused"], told["profile"], told["drift"]) == (why, None, [])
    assert told["accounts"]["quarantined"] == data.table.quarantined
    assert [file["names"] for file in told["files"]] == [p.files for p in data.snapshot.pieces]
    assert why in Path(described.page).read_text()
    assert described.summary.splitlines()[2] == f"- refused: {why}"
