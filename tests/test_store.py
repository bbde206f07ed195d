"""What the store promises: a whole file or none, on a disk or behind a URL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from ray_jobs import store
from ray_jobs.errors import StoreError
from tests.s3_parts import Server


@pytest.fixture(params=["disk", "file", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        server: Server = request.getfixturevalue("s3")
        return f"{server.bucket()}/store"
    return {
        "disk": str(tmp_path / "store"),
        "file": f"file://{tmp_path}/store",
        "memory": f"memory://store-{uuid4().hex}",
    }[request.param]


def test_what_is_written_is_read_and_what_is_removed_is_gone(root: str) -> None:
    uri = store.join(root, "a", "b.bin")
    assert not store.exists(uri)
    for content in (b"one", b"", bytes(range(256))):
        store.write_bytes(uri, content)
        assert store.read_bytes(uri) == content
    store.remove(uri)
    store.remove(uri)
    assert not store.exists(uri)
    store.write_json(store.join(root, "c", "d.json"), {"x": np.float32(0.5), "y": [1, None]})
    assert store.read_json(store.join(root, "c", "d.json")) == {"x": 0.5, "y": [1, None]}
    store.remove(store.join(root, "c"))
    assert not store.exists(store.join(root, "c", "d.json"))
    assert store.sizes(store.join(root, "c")) == {}


def test_nothing_there_is_said(root: str) -> None:
    for read in (store.read_bytes, store.read_json):
        with pytest.raises(StoreError, match=f"nothing at {root}/none"):
            read(store.join(root, "none"))
    with pytest.raises(StoreError, match="nothing at"):
        store.fetch(store.join(root, "none"), Path("unused"))


def test_damaged_json_says_what_to_do(root: str) -> None:
    uri = store.join(root, "x.json")
    store.write_bytes(uri, b'{"half":')
    with pytest.raises(StoreError, match=r"x\.json is not JSON .*remove it and run again"):
        store.read_json(uri)


def test_a_folder_travels_to_the_store_and_back(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    files = {"a.bin": b"a", "deep/b.bin": b"b", "manifest.json": b"{}"}
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    store.put_folder(source, store.join(root, "copy"))
    back = store.fetch(store.join(root, "copy"), tmp_path / "back")
    found = {p.relative_to(back).as_posix(): p.read_bytes() for p in back.rglob("*") if p.is_file()}
    assert found == files


def test_a_folders_manifest_is_copied_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "manifest.json", "z"):
        (tmp_path / name).touch()
    written: list[str] = []
    monkeypatch.setattr(store, "write_bytes", lambda uri, _: written.append(uri))
    store.put_folder(tmp_path, "memory://x")
    assert written[-1] == "memory://x/manifest.json"
    assert len(written) == 3


def test_a_disk_that_refuses_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.parquet"
    store.write_bytes(str(path), b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot be written.*No space left.*LYCEUM_STORE"):
        store.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.parquet"]


def test_a_place_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        store.write_bytes(str(tmp_path / "file" / "below"), b"x")
    with pytest.raises(StoreError, match="cannot be read"):
        store.read_bytes(str(tmp_path))


def test_a_file_is_on_the_disk_whole_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "table.parquet", list[int]()
    store.write_bytes(str(path), b"old")

    def sync(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        assert path.read_bytes() == b"old"

    monkeypatch.setattr(os, "fsync", sync)
    store.write_bytes(str(path), b"newer")
    assert synced == [len(b"newer")]
    assert path.read_bytes() == b"newer"


def test_a_slash_at_the_end_of_a_place_changes_nothing(root: str) -> None:
    store.write_bytes(store.join(f"{root}/", "a", "b"), b"x")
    assert store.read_bytes(store.join(root, "a", "b")) == b"x"
    assert store.join(f"{root}/", "a") == store.join(root, "a")


WRITER = """
import os, signal, sys
from ray_jobs import store
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
store.write_bytes(sys.argv[1], b"new" * 1000)
"""


def test_a_writer_killed_half_way_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    store.write_bytes(str(path), b"old")
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    store.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("uri", "local"),
    [("/a/b", True), ("a", True), ("file:///a", True), ("s3://a/b", False), ("memory://a", False)],
)
def test_local_places_are_told_from_others(uri: str, local: bool) -> None:
    assert store.is_local(uri) == local
