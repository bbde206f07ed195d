"""What reading in pieces and shares promises: nothing is read twice, lost, or cut in two."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import manifest, privacy, store
from ray_jobs.data import clean as cleaning
from ray_jobs.data import pieces, readers, runs
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.raw import Raw
from ray_jobs.data.snapshot import Snapshot, Taken
from ray_jobs.data.sources import Source, each_alone, find
from ray_jobs.data.tables import each, read_parquet, scan
from ray_jobs.errors import ContractError, StoreError
from ray_jobs.families.knowledge import formats
from ray_jobs.families.knowledge.table import Columns
from ray_jobs.privacy import Aliases, Key
from tests.data_parts import KEY, TIMED, cleaned, csv, delivered, quarantine, taken

SOME = settings(max_examples=25, deadline=None)  # each writes files
BUCKETS = st.lists(st.none() | st.integers(0, 5).map(lambda n: n * 2**62 % 2**64), max_size=30)
LOG = [(f"u{n % 17}", f"i{n % 5}", f"s{n % 3}", str(n % 2), str(n % 40)) for n in range(120)]


def frame(buckets: Sequence[int | None]) -> pl.DataFrame:
    rows = {"bucket": buckets, "text": [str(n) for n in range(len(buckets))]}
    schema = {"bucket": pl.UInt64(), "text": pl.String()}
    return pl.DataFrame(rows, schema=schema).with_row_index("position").cast({"position": pl.Int64})


@SOME
@given(BUCKETS, st.integers(1, 5), st.integers(1, 4))
def test_every_row_of_a_run_is_in_one_share_and_all_of_a_learner_in_the_same(
    buckets: list[int | None], shares: int, batch: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(runs, "BATCH_ROWS", batch)
        run = runs.write(f"{folder}/run.arrow", frame(buckets), {"file": "log.csv", "split": None})
        snapshot = snapshot_of(replace(run, offset=100))
        found = [snapshot.rows(share, shares) for share in range(shares)]
    places = [place for part in found for place in part["position"]]
    assert Counter(places) == Counter(range(100, 100 + len(buckets)))
    owners = Counter(bucket for part in found for bucket in part["bucket"].unique())
    assert set(owners.values()) <= {1}
    assert all(part["file"].eq("log.csv").all() for part in found)
    assert [part.columns for part in found] == [run.schema] * shares


def snapshot_of(*parts: runs.Run) -> Snapshot:
    return Snapshot(
        "", "", 0, {}, timed=True, group="", ordered=True, pieces=[Taken("", [], 0, 0, list(parts))]
    )


def test_a_share_of_a_store_elsewhere_is_read_as_one_here() -> None:
    buckets = [n * 2**57 for n in range(100)]
    run = runs.write("memory://runs/run.arrow", frame(buckets), {})
    part = runs.read(run, 2**58, 2**60)
    assert part["bucket"].to_list() == [b for b in buckets if 2**58 <= b <= 2**60]
    assert runs.texts(run, "text").to_list() == [str(n) for n in range(100)]
    store.write_bytes(run.uri, b"no Arrow file")
    with pytest.raises(StoreError, match=r"run\.arrow cannot be read"):
        runs.read(run)


@pytest.mark.parametrize("timed", [True, False])
def test_in_how_many_runs_and_shares_a_log_lies_is_nothing_to_its_table(
    timed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [("u1", "i1", "s1", "9", "5"), ("", "i1", "s1", "1", "5"), ("u3", "", "s", "1", "5")]
    rows = [*TIMED, *LOG, *wrong] if timed else [(*row[:4], "") for row in [*LOG, *wrong]]
    one = cleaned(tmp_path / "one", {"log.csv": csv(rows)})
    monkeypatch.setattr(pieces, "RUN_ROWS", 10)
    monkeypatch.setattr(cleaning, "SHARE_ROWS", 25)
    cut = {f"{n:03d}.csv": csv(rows[n : n + 30]) for n in range(0, len(rows), 30)}
    many = cleaned(tmp_path / "many", cut)
    assert many.counts == one.counts
    assert many.digest == one.digest
    assert read_parquet(many.table).equals(read_parquet(one.table))
    assert sorted(q[2:] for q in quarantine(many)) == sorted(q[2:] for q in quarantine(one))
    assert len(list(Path(many.table).iterdir())) > 3


def test_a_file_that_was_read_is_not_read_again(tmp_path: Path) -> None:
    first = delivered(tmp_path, {"a.csv": csv(TIMED)})
    assert taken(str(tmp_path / "logs"), tmp_path / "store") == (first, True)
    piece = Path(first.runs[0].uri)
    before = piece.stat().st_mtime_ns
    second = delivered(tmp_path, {"b.csv": csv(LOG[:50])})
    assert piece.stat().st_mtime_ns == before
    assert second.runs[0] == first.runs[0]
    assert (second.read, first.read) == (52, 2)


def test_what_comes_late_gives_what_coming_at_once_would_have(tmp_path: Path) -> None:
    """In another order, in other files, and some of it read before."""
    whole = delivered(tmp_path / "whole", {"log.csv": csv([*TIMED, *LOG])})
    delivered(tmp_path / "late", {"2.csv": csv(LOG[60:])})
    late = delivered(tmp_path / "late", {"1.csv": csv(LOG[:60]), "3.csv": csv(TIMED)})
    assert late.digest == whole.digest
    assert late.uri.rsplit("/", 1)[-1] == whole.uri.rsplit("/", 1)[-1]


def test_another_reading_of_a_file_is_another_piece(tmp_path: Path) -> None:
    first = delivered(tmp_path, {"log.csv": csv(TIMED)})
    swapped = delivered(tmp_path, {}, Columns(item="skills", skills="item"))
    assert swapped.digest != first.digest
    assert not {run.uri for run in swapped.runs} & {run.uri for run in first.runs}


@pytest.mark.parametrize(
    ("files", "timed"),
    [
        ([["5"] * 20, ["6"] * 20], True),  # each file of one moment, and yet they differ
        ([["5"] * 95, ["6"] * 5], False),  # a slip among constants
        ([["5"] * 19, [str(n) for n in range(40)]], True),
        ([["5"] * 90, ["5", "7"] * 5], False),
        ([[""] * 20, [""] * 5], False),
    ],
)
def test_whether_times_tell_anything_is_asked_of_all_files_together(
    files: list[list[str]], timed: bool, tmp_path: Path
) -> None:
    logs = {
        f"{n}.csv": csv([(f"u{i}", "i", "s", "1", time) for i, time in enumerate(times)])
        for n, times in enumerate(files)
    }
    assert delivered(tmp_path, logs).timed is timed


def test_a_failing_run_ends_the_reading_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "RUN_ROWS", 1)
    whole = store.write_bytes

    def full(uri: str, data: bytes) -> None:
        if uri.endswith(".arrow"):
            raise StoreError(f"{uri} cannot be written: the disk is full")
        whole(uri, data)

    batches = 0

    def read(unit: Sequence[Source]) -> Iterator[Raw]:
        nonlocal batches
        (raw,) = formats.read(unit, Columns())
        for number in range(1, 100):
            batches = number
            yield raw

    monkeypatch.setattr(store, "write_bytes", full)
    (tmp_path / "log.csv").write_bytes(csv(LOG))
    units = each_alone(find(str(tmp_path / "log.csv")))
    with pytest.raises(StoreError, match="disk is full"):
        ingest(units, read, group="learner", key=KEY, store_uri=str(tmp_path / "store"))
    assert batches == 2, "the first is found out while the second is read"
    assert not list(tmp_path.rglob("manifest.json"))


def test_learners_forgotten_meanwhile_get_the_same_pseudonym(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(privacy, "MOST_KNOWN", 2)
    aliases = Aliases(KEY)
    for names in (["a", None, "b"], ["c", "a", "a"], ["d", "b"], ["a", "d"]):
        rows = pl.DataFrame({"learner": pl.Series(names, dtype=pl.String), "n": range(len(names))})
        found = aliases.replaced(rows, "learner")
        assert found["learner"].equals(KEY.pseudonyms(rows["learner"]))
        assert found["bucket"].equals(privacy.buckets(rows["learner"]), check_names=False)
        assert found["n"].equals(rows["n"])


def test_after_an_error_no_other_part_is_begun() -> None:
    begun: list[int] = []

    def work(n: int) -> int:
        begun.append(n)
        if n == 1:
            raise ContractError("the second")
        time.sleep(0.001 * (n > 1))  # or all are done before anybody hears of the error
        return n

    with pytest.raises(ContractError, match="the second"):
        each(work, range(500))
    assert len(begun) < 500
    assert each(lambda n: n + 1, range(5)) == [1, 2, 3, 4, 5]


def test_how_much_was_known_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    delivered(tmp_path, {"a.csv": csv(TIMED)})
    with caplog.at_level(logging.INFO, logger="ray_jobs"):
        delivered(tmp_path, {"b.csv": csv(LOG)})
    assert "from 2 files, 1 of them read now, 0 malformed" in caplog.text


def test_another_key_reads_again(tmp_path: Path) -> None:
    first = delivered(tmp_path, {"log.csv": csv(TIMED)})
    other, known = taken(str(tmp_path / "logs"), tmp_path / "store", key=Key(b"k" * 32))
    assert not known
    assert not {run.uri for run in other.runs} & {run.uri for run in first.runs}


def test_a_file_that_is_written_to_while_it_is_read_is_refused_and_not_kept(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.csv"
    log.write_bytes(csv(TIMED))

    def read(unit: Sequence[Source]) -> Iterator[Raw]:
        with log.open("ab") as file:
            file.write(b"\nu,i,s,1,9")
        yield from formats.read(unit, Columns())

    def ingested(how: Callable[[Sequence[Source]], Iterator[Raw]]) -> Snapshot:
        units, at = each_alone(find(str(log))), str(tmp_path / "store")
        return ingest(units, how, group="learner", key=KEY, store_uri=at)[0]

    with pytest.raises(ContractError, match=r"log\.csv was written to while it was read"):
        ingested(read)
    log.write_bytes(csv(TIMED))
    assert ingested(lambda unit: formats.read(unit, Columns())).read == 2


def test_what_another_run_is_writing_is_no_part_of_a_stage(tmp_path: Path) -> None:
    def work(uri: str) -> dict[str, str]:
        store.write_bytes(f"{uri}/part", b"whole")
        Path(uri, ".part.of-another-run").write_bytes(b"half")
        return {"uri": uri}

    made, _ = manifest.once(str(tmp_path), "stage", {}, work)
    Path(made["uri"], ".part.of-another-run").unlink()
    assert manifest.once(str(tmp_path), "stage", {}, work) == (made, True)


def test_a_store_may_be_called_anything(tmp_path: Path) -> None:
    table = cleaned(tmp_path / "class [1] *", {"log.csv": csv(TIMED)})
    assert len(read_parquet(table.table)) == len(scan(table.table).collect()) == 2


def test_lines_that_are_no_rows_are_held_no_longer_than_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "RUN_ROWS", 1)
    torn = b"\n".join([csv(TIMED), *[b"torn"] * 40])
    (tmp_path / "log.csv").write_bytes(torn)
    batches = partial(readers.batches, block_bytes=32)
    found = list(pieces._runs(batches(find(str(tmp_path / "log.csv"))[0])))
    assert sum(len(run.malformed) for run in found) == 40
    assert max(len(run.malformed) for run in found) < 10
