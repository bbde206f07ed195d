"""What erasure promises: nothing of a learner is left on the store, and nothing of others goes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import manifest, store
from ray_jobs.data.erasure import Erasure, Receipt
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.raw import Raw
from ray_jobs.data.sources import Source, each_alone, find
from ray_jobs.data.tables import write_part
from ray_jobs.errors import ContractError, StoreError
from ray_jobs.families.knowledge import formats
from ray_jobs.families.knowledge.table import Columns
from ray_jobs.privacy import Key
from tests.data_parts import (
    DIRTY,
    GARBAGE,
    HEADER,
    KEY,
    TIMED,
    UNTIMED,
    Row,
    School,
    csv,
    delivered,
    good,
    said,
    small_runs,
    taken,
)

SOME = settings(max_examples=25, deadline=None)  # each writes files
ANN, BOB = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
# Rows of both, bad ones and torn ones among them.
LOG: list[Row] = [
    *TIMED, (ANN, "i1", "s", "1", "5"), (BOB, "i1", "s", "0", "5"), (ANN, "i2", "s", "maybe", "6"),
    (BOB, "", "s", "1", "7"),
]  # fmt: skip
TORN = f"{ANN},torn\n{BOB};torn\ntorn".encode()


def erased(learner: str, school: School) -> Receipt:
    erasure = Erasure(learner, school.store, KEY)
    erasure.rewrite()
    erasure.remove()
    return erasure.receipt


@SOME
@given(DIRTY, st.lists(GARBAGE, max_size=4), st.booleans(), st.sampled_from(["ann", "bob", "zoe"]))
def test_a_store_is_as_if_the_learner_had_never_been_in_it(
    rows: list[Row], garbage: list[str], timed: bool, learner: str
) -> None:
    header = HEADER if timed else UNTIMED
    lines = [",".join(row if timed else row[:4]) for row in rows]
    lines += [*garbage, f"{learner} torn", f"torn,{learner}"]
    others = [
        line for line in lines if line.split(",")[0].strip() != learner and "torn" not in line
    ]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        small_runs(patch)
        school = School(Path(folder, "one"), "\n".join([header, *lines]).encode())
        receipt = erased(learner, school)
        store_ = Path(school.store)
        assert KEY.pseudonym(learner) not in said(store_)
        school.take({})
        assert KEY.pseudonym(learner) not in said(store_)
        torn = [line for line in lines if "torn" in line and learner not in line]
        never = School(Path(folder, "two"), "\n".join([header, *others, *torn]).encode())
        assert school.snapshot.digest == never.snapshot.digest
        assert school.snapshot.name == never.snapshot.name
        assert school.table.counts == never.table.counts
        assert school.rows.equals(never.rows)
    assert len(receipt.snapshots) == 1


def test_what_was_changed_is_on_the_receipt_and_it_names_nobody(tmp_path: Path) -> None:
    school = School(tmp_path, csv(LOG) + b"\n" + TORN)
    before = school.snapshot
    splits = kept_by(school, "split", {"table": "t"}, "divided")
    judged, others = (kept_by(school, "evaluate", {"splits": s}) for s in ("divided", "others"))
    school.replay(good(school.bad()))
    school.take({})
    other = delivered(tmp_path / "other", {"log.csv": csv(TIMED)})
    receipt = erased(ANN, school)
    assert set(receipt.snapshots) == {before.name, school.snapshot.name}
    assert receipt.digests == {before.digest, school.snapshot.digest}
    assert len(receipt.pieces) == 2, "as it was read, and as it was mended"
    assert {uri.split("/")[-2] for uri in receipt.tables} == {"clean", "split", "evaluate"}
    assert receipt.repairs == 1
    assert (splits.exists(), judged.exists(), others.exists()) == (False, False, True)
    for gone in (*receipt.pieces, *receipt.tables, before.uri, school.snapshot.uri):
        assert not Path(gone).exists(), gone
    kept = Path(school.store, "erasures", f"{receipt.learner}.json").read_text()
    assert orjson.loads(kept)["finished"] == receipt.finished != ""
    for name in (ANN, KEY.pseudonym(ANN)):
        assert name not in kept
    assert Path(other.uri).exists()


def kept_by(school: School, stage: str, inputs: dict[str, str], content: str = "") -> Path:
    """The folder of a result that holds the clean table, or is about one that does."""

    def work(uri: str) -> dict[str, str]:
        if content:
            write_part(store.join(uri, "train"), 0, school.rows)
        return {"content": content}

    manifest.once(school.store, stage, inputs, work)
    return Path(manifest.folder(school.store, stage, inputs))


@pytest.mark.parametrize("step", range(1, 22))
def test_killed_at_any_step_and_asked_again_it_is_done(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = School(tmp_path, csv(LOG[:3]), "a.csv")
    school.take({"b.csv": csv(LOG[3:]) + b"\n" + TORN})
    school.replay(good(school.bad()))
    school.take({})
    kept_by(school, "split", {"table": "t"}, "divided")
    kept_by(school, "evaluate", {"splits": "divided"})
    steps = iter(range(1, 1000))
    with monkeypatch.context() as patch:
        for name in ("write_bytes", "remove"):
            patch.setattr(store, name, dying(getattr(store, name), steps, step))
        try:
            erased(ANN, school)
        except StoreError:
            pass
        else:
            assert next(steps) <= step, "it was over before"
    receipt = erased(ANN, school)
    assert KEY.pseudonym(ANN) not in said(Path(school.store))
    assert ANN not in said(Path(school.store))
    assert len(receipt.snapshots) == 3
    school.take({})
    assert KEY.pseudonym(ANN) not in said(Path(school.store))
    never = School(tmp_path / "never", csv([*TIMED]), "a.csv")
    never.take({"b.csv": csv([LOG[3], LOG[5]]) + f"\n{BOB};torn\ntorn".encode()})
    never.replay(good(never.bad()))
    never.take({})
    assert school.table.kept == never.table.kept == 6


def dying(whole: Callable[..., None], steps: Iterator[int], last: int) -> Callable[..., None]:
    """A step that does its work, unless it is the one at which the process dies."""

    def step(*arguments: Any) -> None:
        if next(steps) == last:
            raise StoreError("killed")
        whole(*arguments)

    return step


def test_who_was_erased_is_not_taken_in_again_and_others_are(tmp_path: Path) -> None:
    school = School(tmp_path, csv(LOG))
    erased(ANN, school)
    school.take({"new.csv": csv([(ANN, "i9", "s", "1", "90"), (BOB, "i9", "s", "1", "91")])})
    assert school.table.read == 5
    assert KEY.pseudonym(ANN) not in said(Path(school.store))
    assert erased(ANN, school).snapshots.keys() == erased(ANN, school).snapshots.keys()


def test_a_snapshot_that_held_nobody_else_is_gone(tmp_path: Path) -> None:
    school = School(tmp_path, csv(LOG[2:3], HEADER))
    receipt = erased(ANN, school)
    assert [s.after for s in receipt.snapshots.values()] == [""]
    assert KEY.pseudonym(ANN) not in said(Path(school.store))
    with pytest.raises(ContractError, match="no row could be read"):
        school.take({})


def test_a_learner_who_is_not_there_changes_nothing_but_may_not_come(tmp_path: Path) -> None:
    school = School(tmp_path, csv(LOG) + b"\n" + TORN)
    before = said(Path(school.store))
    receipt = erased("nobody", school)
    assert (receipt.snapshots, receipt.pieces, receipt.tables, receipt.repairs) == ({}, [], [], 0)
    Path(school.store, "erasures", f"{receipt.learner}.json").unlink()
    assert said(Path(school.store)) == before


def test_a_piece_that_was_read_under_another_key_is_left(tmp_path: Path) -> None:
    school = School(tmp_path, csv(LOG) + b"\n" + TORN)
    other = Erasure(ANN, school.store, Key(b"x" * 32))
    other.rewrite()
    other.remove()
    assert other.receipt.pieces == []
    assert len(school.bad()) == 5


def test_what_a_killed_run_left_half_written_goes_too(tmp_path: Path) -> None:
    school = School(tmp_path, csv(LOG))
    (piece,) = {Path(run.uri).parents[1] for run in school.snapshot.runs}
    (piece / "manifest.json").unlink()
    assert KEY.pseudonym(ANN) in said(piece)
    receipt = erased(ANN, school)
    assert str(piece) in receipt.tables
    assert not piece.exists()


def test_killed_half_way_through_a_folder_it_is_done_when_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = School(tmp_path, csv(LOG))
    whole = store.remove

    def half(uri: str) -> None:
        whole(uri if "/ingest/" not in uri or uri.endswith(".json") else f"{uri}/runs")
        if not Path(uri).suffix and "/ingest/" in uri:
            raise StoreError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(store, "remove", half)
        with pytest.raises(StoreError, match="killed"):
            erased(ANN, school)
    erased(ANN, school)
    assert KEY.pseudonym(ANN) not in said(Path(school.store))


def test_who_is_erased_while_their_log_is_read_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(csv(LOG))
    kept = str(tmp_path / "store")

    def read(unit: Sequence[Source]) -> Iterator[Raw]:
        yield from formats.read(unit, Columns())
        erasure = Erasure(ANN, kept, KEY)
        erasure.rewrite()
        erasure.remove()

    with pytest.raises(ContractError, match=r"erased while .*log\.csv was read; run again"):
        ingest(each_alone(find(str(path))), read, group="learner", key=KEY, store_uri=kept)
    snapshot, _ = taken(str(path), Path(kept))
    assert KEY.pseudonym(ANN) not in said(Path(kept))
    assert snapshot.read == 4
