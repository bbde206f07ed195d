"""The store: whole files at URIs, written at once or not at all.

Local paths and any fsspec URL look alike from here. A reader never sees half
a file: a disk gets a temporary name and a rename, object stores put atomically.
Whoever has `remote.patience` waits here for a storage that went away.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import orjson

from ray_jobs import remote
from ray_jobs.errors import StoreError


def is_local(uri: str) -> bool:
    """Whether a URI names a place on this machine's disk."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path behind a local URI."""
    assert is_local(uri), uri
    return Path(uri.removeprefix("file://"))


def join(uri: str, *parts: str) -> str:
    """Extend a URI by path segments."""
    base = uri if uri.endswith("://") else uri.rstrip("/")
    return "/".join([base, *parts])


@remote.waits
def exists(uri: str) -> bool:
    return remote.exists(uri)


@remote.waits
def read_bytes(uri: str) -> bytes:
    """Raises StoreError when nothing is there, or it cannot be read."""
    fs, path = remote.file_system(uri)
    try:
        with remote.told(uri):
            data = fs.cat_file(path)
    except FileNotFoundError as error:
        raise StoreError(f"nothing at {uri}") from error
    except (IsADirectoryError, PermissionError) as error:
        raise StoreError(f"{uri} cannot be read: {error}") from error
    assert isinstance(data, bytes)
    return data


@remote.waits
def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file atomically, making its folder; raises StoreError where that is refused."""
    try:
        if is_local(uri):
            _replace(local_path(uri), data)
            return
        fs, path = remote.file_system(uri)
        with remote.told(uri):
            fs.pipe_file(path, data)
    except OSError as error:
        raise StoreError(
            f"{uri} cannot be written: {error}; make room, or name another place with LYCEUM_STORE"
        ) from error


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only this user may read; where another process was first, its file holds.

    Raises OSError where the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def read_json(uri: str) -> Any:
    """Raises StoreError when the file is missing or is not JSON."""
    try:
        return orjson.loads(read_bytes(uri))
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{uri} is not JSON ({error}); remove it and run again") from error


def write_json(uri: str, value: Any) -> None:
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    write_bytes(uri, orjson.dumps(value, option=options))


@remote.waits
def sizes(uri: str) -> dict[str, int]:
    """Every file below a folder by its path from there, and its size in bytes."""
    if not exists(uri):
        return {}
    fs, path = remote.file_system(uri)
    start = path.rstrip("/") + "/"
    with remote.told(uri):
        found = fs.find(path, detail=True)
    return {
        name.removeprefix(start): int(info["size"])
        for name, info in found.items()
        if info["type"] != "directory" and not name.endswith("/")  # what stands for a folder
    }


@remote.waits
def remove(uri: str) -> None:
    """Remove a file or a folder; nothing there is fine."""
    if is_local(uri):
        path = local_path(uri)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    if exists(uri):
        fs, there = remote.file_system(uri)
        with remote.told(uri):
            fs.rm(there, recursive=True)


@remote.waits
def fetch(uri: str, into: Path) -> Path:
    """A local folder with the content of a folder on the store; a local one is itself."""
    if is_local(uri):
        path = local_path(uri)
        if not path.is_dir():
            raise StoreError(f"nothing at {uri}")
        return path
    if not exists(uri):
        raise StoreError(f"nothing at {uri}")
    fs, there = remote.file_system(uri)
    into.mkdir(parents=True, exist_ok=True)
    with remote.told(uri):
        fs.get(there.rstrip("/") + "/", str(into), recursive=True)
    return into


def put_folder(source: Path, uri: str) -> None:
    """Copy a local folder to a folder on the store, its files first, its manifest last."""
    files = sorted(p for p in source.rglob("*") if p.is_file())
    files.sort(key=lambda p: p.name == "manifest.json")
    for path in files:
        write_bytes(join(uri, path.relative_to(source).as_posix()), path.read_bytes())
