"""What `lyceum data` shows: the snapshots there are, what each is made of, and what came since."""

from __future__ import annotations

import io
import re
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from flows.cli import console, data
from ray_jobs import manifest, store
from ray_jobs.data.history import difference, named, snapshots, tables
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.errors import ContractError, StoreError, UsageError
from tests.data_parts import TIMED, clean_table, csv, delivered

LATER = [("u9", "i1", "s1", "1", "50"), ("u9", "i2", "s1", "0", "60"), ("torn",)]


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Snapshot, Snapshot]:
    """A folder of one file, and the same with another file in it."""
    first = delivered(tmp_path, {"a.csv": csv(TIMED)})
    return first, delivered(tmp_path, {"b.csv": csv(LATER)})


@pytest.fixture
def said(
    tmp_path: Path, grown: tuple[Snapshot, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> io.StringIO:
    """What is printed of the store of `grown`."""
    text = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=text, highlight=False))
    monkeypatch.setenv("LYCEUM_STORE", str(tmp_path / "store"))
    return text


def test_snapshots_are_listed_with_what_they_grew_out_of(
    grown: tuple[Snapshot, Snapshot], tmp_path: Path
) -> None:
    first, second = grown
    found = {entry.snapshot.name: entry for entry in snapshots(str(tmp_path / "store"))}
    assert found[first.name].parent == ""
    assert found[second.name].parent == first.name
    assert found[second.name].snapshot == second
    assert found[first.name].taken <= found[second.name].taken


def test_a_store_without_snapshots_has_none(tmp_path: Path) -> None:
    assert snapshots(str(tmp_path / "store")) == []
    with pytest.raises(UsageError, match="there are none yet"):
        named(str(tmp_path / "store"), "abcd")


def test_a_snapshot_that_was_half_written_is_none(
    grown: tuple[Snapshot, Snapshot], tmp_path: Path
) -> None:
    Path(grown[0].uri, "manifest.json").unlink()
    names = [entry.snapshot.name for entry in snapshots(str(tmp_path / "store"))]
    assert names == [grown[1].name]


@pytest.mark.parametrize("lacking", ["pieces", "group"])
def test_a_snapshot_of_an_earlier_kind_is_named_with_the_way_out(
    lacking: str, grown: tuple[Snapshot, Snapshot], tmp_path: Path
) -> None:
    uri = f"{grown[0].uri}/manifest.json"
    old = {name: value for name, value in store.read_json(uri).items() if name != lacking}
    store.write_json(uri, old)
    with pytest.raises(StoreError, match=f"{grown[0].name} was written by an earlier Lyceum"):
        snapshots(str(tmp_path / "store"))


def test_a_snapshot_is_called_by_the_beginning_of_its_name_or_digest(
    grown: tuple[Snapshot, Snapshot], tmp_path: Path
) -> None:
    uri = str(tmp_path / "store")
    for snapshot in grown:
        assert named(uri, snapshot.name[:8]).snapshot == snapshot
        assert named(uri, snapshot.digest[:12]).snapshot == snapshot
    for wrong in ("", grown[0].name[:3], "no such name"):
        with pytest.raises(UsageError, match=grown[0].name):
            named(uri, wrong)


def test_what_came_and_went_is_told_by_file(grown: tuple[Snapshot, Snapshot]) -> None:
    first, second = grown
    came = difference(first, second)
    assert [piece.files for piece in came.new] == [["b.csv"]]
    assert [(piece.rows, piece.malformed) for piece in came.new] == [(2, 1)]
    assert ([p.files for p in came.same], came.gone) == ([["a.csv"]], [])
    went = difference(second, first)
    assert ([p.files for p in went.gone], went.new) == ([["b.csv"]], [])


def test_the_clean_tables_of_a_snapshot_are_found_refused_ones_too(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    for name, rows in (("good", TIMED), ("bad", [*TIMED, ("a", "", "s", "1", "5")] * 2)):
        snapshot = delivered(tmp_path / name, {"a.csv": csv(rows)})
        table = partial(clean_table, snapshot, f"{uri}/stages/clean/{name}")
        with nullcontext() if name == "good" else pytest.raises(ContractError):
            table(limit=0.1)
        (found,) = tables(uri, snapshot)
        assert (found.kept, bool(found.refused)) == (2, name == "bad")


def test_list_show_and_diff_print_the_counts(
    said: io.StringIO, grown: tuple[Snapshot, Snapshot]
) -> None:
    first, second = grown
    data.list_()
    data.show(second.name)
    data.diff(first.name, second.name)
    text = said.getvalue()
    for expected in (
        first.name,
        second.digest[:12],
        f"parent: {first.name}",
        "rows: 5",
        "malformed: 1",
        "new: 1 pieces, 2 rows",
        "gone: 0 pieces, 0 rows",
        "same: 1 pieces, 2 rows",
    ):
        assert expected in text, expected


def test_each_prints_json_as_well(said: io.StringIO, grown: tuple[Snapshot, Snapshot]) -> None:
    first, second = grown
    data.list_(json=True)
    assert [e["snapshot"] for e in orjson.loads(said.getvalue())] == [first.name, second.name]
    said.truncate(said.seek(0))
    data.show(second.name, json=True)
    shown = orjson.loads(said.getvalue())
    assert [piece["files"] for piece in shown["pieces"]] == [["a.csv"], ["b.csv"]]
    assert shown["tables"] == []
    said.truncate(said.seek(0))
    data.diff(first.name, second.name, json=True)
    assert [piece["rows"] for piece in orjson.loads(said.getvalue())["new"]] == [2]


def test_the_same_rows_in_other_files_are_said_to_be_the_same(
    said: io.StringIO, grown: tuple[Snapshot, Snapshot], tmp_path: Path
) -> None:
    (tmp_path / "logs" / "b.csv").unlink()
    torn = delivered(tmp_path, {"a.csv": csv([*TIMED, ("torn",)])})
    assert torn.digest == grown[0].digest
    data.diff(grown[0].name, torn.name)
    assert "the same rows" in said.getvalue()


def test_a_snapshot_is_shown_with_the_reports_on_it(
    said: io.StringIO, grown: tuple[Snapshot, Snapshot], tmp_path: Path
) -> None:
    def described(number: int, snapshot: Snapshot) -> None:
        told = {"snapshot": snapshot.name, "page": f"/page/{number}.html"}
        manifest.once(str(tmp_path / "store"), "describe", {"number": number}, lambda _: told)

    for number, snapshot in enumerate([*grown, grown[1]]):
        described(number, snapshot)
    data.show(grown[1].name)
    assert sorted(re.findall(r"^report: (.+)$", said.getvalue(), re.MULTILINE)) == [
        "/page/1.html", "/page/2.html",
    ]  # fmt: skip
    data.show(grown[0].name, json=True)
    assert '"reports": [\n    "/page/0.html"\n  ]' in said.getvalue()


def test_without_a_snapshot_the_way_to_one_is_said(
    said: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCEUM_STORE", str(tmp_path / "empty"))
    data.list_()
    assert "lyceum run RECIPE --data PATH" in said.getvalue()
    assert not store.exists(str(tmp_path / "empty"))
