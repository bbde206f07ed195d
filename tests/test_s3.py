"""Object storage is a place like a disk: the same names, tables and digests, and plain errors."""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from ray_jobs import manifest, remote, settings, store
from ray_jobs.data import history
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.sources import Source, find
from ray_jobs.data.split import SplitTable
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import ContractError, UsageError
from ray_jobs.training import driver
from tasks.prepare import clean, ingest, split
from tasks.run import Run
from tests.s3_parts import Server
from tests.stages_parts import planned, school
from tests.test_manifest import INPUTS, Stage


def packed(table: pl.DataFrame, name: str) -> bytes:
    """A log as a file of that name has it."""
    if name.endswith(".parquet"):
        buffer = io.BytesIO()
        table.write_parquet(buffer, row_group_size=100)
        return buffer.getvalue()
    text = (table.write_ndjson() if ".jsonl" in name else table.write_csv()).encode()
    if name.endswith(".gz"):
        return gzip.compress(text, mtime=0)
    if name.endswith(".zst"):
        return bytes(pa.Codec("zstd").compress(text, asbytes=True))
    if not name.endswith(".zip"):
        return text
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name.removesuffix(".zip"), text)
    return buffer.getvalue()


FILES = (
    "b.csv", "B.csv.gz", "log[1].csv", "a/late.csv.zst", "a/b/deep.csv.zip", "z.parquet",
    "a ü+%20.jsonl", ".hidden.csv", ".trash/old.csv", "notes.md", "map.json",
)  # fmt: skip


@pytest.fixture
def twice(tmp_path: Path, s3: Server) -> tuple[Path, str]:
    """A delivery in every form there is, on disk and on S3."""
    school(tmp_path, learners=30, dirt=0.0)
    logs = sorted((tmp_path / "logs").iterdir())
    log = pl.concat(pl.read_csv(path, infer_schema=False) for path in logs)
    odd = pl.int_range(pl.len()) % 50 == 0
    log = log.with_columns(correct=pl.when(odd).then(pl.lit("maybe")).otherwise("correct"))
    rows = len(log) // len(FILES)
    folder, url = tmp_path / "delivery", s3.bucket()
    for number, name in enumerate(FILES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed(log[number * rows : (number + 1) * rows], name))
        store.write_bytes(f"{url}/delivery/{name}", path.read_bytes())
    # A console makes such an object when somebody makes a folder there.
    bucket = url.removeprefix("s3://")
    for key in ("delivery/", "delivery/empty/"):
        s3.client.put_object(Bucket=bucket, Key=key, Body=b"")
    return folder, f"{url}/delivery"


NAMED = (
    "", "/", "/b.csv", "/*.csv", "/*.csv*", "/?.csv", "/**/*.csv*", "/a", "/*/*.zst", "/[bz].*",
    "/log[1].csv", "/.hidden.csv",
)  # fmt: skip


def test_the_same_files_are_named_on_s3_as_on_disk(twice: tuple[Path, str]) -> None:
    folder, url = twice
    for named in NAMED:
        there, here = find(f"{url}{named}"), find(f"{folder}{named}")
        assert facts(there) == facts(here), named
        assert [s.url.removeprefix(url) for s in there] == [
            s.url.removeprefix(f"file://{folder}") for s in here
        ]
    assert len(find(url)) == 7


def facts(sources: list[Source]) -> list[tuple[str, str, str | None, str, bytes, bytes]]:
    said = []
    for source in sources:
        with source.seekable() as file:
            file.seek(-8, io.SEEK_END)
            end = file.read(8)
        about = (source.name, source.kind, source.split, source.digest())
        said.append((*about, b"".join(source.chunks(1000)), end))
    return said


def test_what_is_not_there_is_told_as_on_disk(twice: tuple[Path, str]) -> None:
    for place in map(str, twice):
        for named, problem in (("/none", "nothing there"), ("/*.tsv", "no data file among 0")):
            with pytest.raises(UsageError, match=problem):
                find(f"{place}{named}")
        (source,) = find(f"{place}/b.csv")
        store.remove(source.url)
        for read in (source.read, source.digest):
            with pytest.raises(ContractError, match=r"b\.csv cannot be read: .*deliver it again"):
                read()


@dataclass(frozen=True)
class Made:
    """What the first three stages made of a delivery."""

    snapshot: Snapshot
    table: CleanTable
    splits: SplitTable
    cached: set[bool]

    @property
    def content(self) -> dict[str, Any]:
        """All that may not depend on where it lies."""
        tables = {name: read_parquet(self.splits.table(name)) for name in ("train", "test")}
        return {
            "snapshot": (self.snapshot.name, self.snapshot.digest, self.snapshot.files),
            "counts": self.table.counts,
            "content": (self.table.content, self.splits.content),
            "rows": {name: table.rows() for name, table in tables.items()},
            "quarantine": read_parquet(self.table.quarantine)["reason"].to_list(),
        }


def made(folder: Path, data: str, at: str) -> Made:
    """Ingest, clean and split a delivery into a store."""
    usual = planned(folder, data=data)
    run = Run(usual.recipe, replace(usual.settings, store=at))
    snapshot, *read = ingest.fn(run)
    table, *cleaned = clean.fn(run, snapshot)
    splits, *divided = split.fn(run, table)
    return Made(snapshot, table, splits, {*read, *cleaned, *divided})


def test_tables_are_the_same_wherever_delivery_and_store_lie(
    twice: tuple[Path, str], tmp_path: Path, s3: Server
) -> None:
    folder, url = twice
    far, near = f"{s3.bucket()}/some/where/", str(tmp_path / "store")
    here = made(tmp_path, str(folder), near)
    for data, at in ((url, near), (str(folder), far)):
        there = made(tmp_path, data, at)
        assert there.content == here.content
        assert there.cached == {at == near}  # as if it were the same delivery, which it is
    assert made(tmp_path, url, far).cached == {True}
    names = [entry.snapshot.name for entry in history.snapshots(far)]
    assert names == [entry.snapshot.name for entry in history.snapshots(near)]
    assert store.sizes(far).keys() == store.sizes(near).keys()


def test_an_installation_may_have_its_store_on_s3() -> None:
    assert settings.read({"LYCEUM_STORE": "s3://school/lyceum"}).store_uri == "s3://school/lyceum"


def test_what_others_write_and_remove_is_seen_at_once(s3: Server) -> None:
    root, others = s3.bucket(), s3.client
    bucket = root.removeprefix("s3://")
    for name in ("x/a", "x/b"):
        before = store.sizes(f"{root}/x")
        assert not store.exists(f"{root}/{name}")
        others.put_object(Bucket=bucket, Key=name, Body=b"ours")
        assert store.exists(f"{root}/{name}")
        assert store.sizes(f"{root}/x") == before | {name[-1]: 4}
    others.put_object(Bucket=bucket, Key="x/folder/", Body=b"")
    assert store.sizes(root) == {"x/a": 4, "x/b": 4}
    others.delete_object(Bucket=bucket, Key="x/a")
    assert not store.exists(f"{root}/x/a")
    assert store.sizes(root) == {"x/b": 4}


def test_a_stage_of_which_another_process_took_a_file_is_done_again(s3: Server) -> None:
    root, stage = s3.bucket(), Stage()
    manifest.once(root, "clean", INPUTS, stage)
    assert manifest.once(root, "clean", INPUTS, stage)[1]
    bucket, key = stage.done[0].removeprefix("s3://").split("/", 1)
    s3.client.delete_object(Bucket=bucket, Key=f"{key}/table")
    assert not manifest.once(root, "clean", INPUTS, stage)[1]
    s3.client.delete_object(Bucket=bucket, Key=f"{key}/manifest.json")
    assert not manifest.once(root, "clean", INPUTS, stage)[1]
    assert manifest.once(root, "clean", INPUTS, stage)[1]


KILLED = """
import os, signal, sys
from ray_jobs import manifest, store
def work(uri):
    store.write_bytes(store.join(uri, "table"), b"other rows")
    os.kill(os.getpid(), signal.SIGKILL)
manifest.once(sys.argv[1], "clean", {}, work)
"""


def test_a_stage_killed_half_way_leaves_nothing_that_is_read_as_whole(s3: Server) -> None:
    root, stage = s3.bucket(), Stage()
    killed = subprocess.run([sys.executable, "-c", KILLED, root], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(store.sizes(root).values()) == [len(b"other rows")]
    result, cached = manifest.once(root, "clean", {}, stage)
    assert not cached
    assert store.read_bytes(store.join(result["uri"], "table")) == b"rows"


@pytest.mark.parametrize("before", [r"ingest/.*manifest", r"snapshots/.*manifest", r"clean/.*-00"])
def test_a_run_that_stopped_half_way_goes_on_to_the_same_tables(
    before: str, tmp_path: Path, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    school(tmp_path, learners=20)
    data, at, write = str(tmp_path / "logs"), s3.bucket(), store.write_bytes

    def until(uri: str, content: bytes) -> None:
        if re.search(before, uri):
            raise KeyboardInterrupt
        write(uri, content)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_bytes", until)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path, data, at)
    assert not any(re.search(before, name) for name in store.sizes(at))
    assert len(history.snapshots(at)) == before.startswith("clean")
    assert made(tmp_path, data, at).content == made(tmp_path, data, str(tmp_path / "s")).content


def test_no_more_is_read_of_a_file_than_what_is_asked_for_and_a_little(s3: Server) -> None:
    uri = f"{s3.bucket()}/large"
    store.write_bytes(uri, os.urandom(1 << 22))
    with remote.opened(uri, ahead_bytes=1 << 16) as file:
        file.seek(1 << 21)
        file.read(100)
        assert file.cache.total_requested_bytes <= 100 + (1 << 16)


def test_ray_keeps_its_notes_of_a_run_there_too(s3: Server) -> None:
    uri = f"{s3.bucket()}/checkpoints"
    path, filesystem = driver._storage(uri)
    with filesystem.open_output_stream(f"{path}/notes/.valid") as file:
        file.write(b"noted")
    assert store.read_bytes(f"{uri}/notes/.valid") == b"noted"
    assert store.sizes(uri) == {"notes/.valid": 5}
