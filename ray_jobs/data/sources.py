"""Which files `--data` names: a file, a folder, a glob or any fsspec URL, in a fixed order.

Also reads off their names the split they were delivered in, and refuses a
folder that holds several folds of one data set.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa

from ray_jobs import remote
from ray_jobs.errors import ContractError, UsageError

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".ndjson", ".json")
COMPRESSED = (".gz", ".zst", ".zip")
CHUNK_BYTES = 1 << 20
SPLIT_NAME = re.compile(
    r"(?:^(?:data)?|[_\-.])(training|train|validation|valid|dev|test)(\d*)(?=[_\-.]|$)"
)
# Of an archive, the last two mean a kind of packing that cannot be undone here, and a password.
UNREADABLE = (
    OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError,
)  # fmt: skip
SHARD = re.compile(r"-\d+-of-\d+")  # a part of a split, as data sets are published
SPLITS = {"training": "train", "valid": "validation", "dev": "validation"}


@dataclass(frozen=True)
class Source:
    """One file of a delivery."""

    url: str
    kind: str  # suffix without compression, such as ".csv"
    split: str | None  # train, validation or test, as its name says
    encoding: str = ""  # of its text; empty: UTF-8, or what its byte order mark says
    name: str = ""  # where it lies in its delivery; by default what the file is called

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.file)

    @property
    def file(self) -> str:
        """What the file is called."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """Its name but for the suffixes that tell its form and packing."""
        packed = next((s for s in COMPRESSED if self.name.lower().endswith(s)), "")
        name = self.name[: len(self.name) - len(packed)]
        return name[: len(name) - len(self.kind)] if name.lower().endswith(self.kind) else name

    def read(self) -> bytes:
        """The whole content, decompressed; raises ContractError where it cannot be had."""
        return b"".join(self.chunks(CHUNK_BYTES))

    def chunks(self, size: int) -> Iterator[bytes]:
        """The content, decompressed, `size` bytes at a time; raises ContractError as `read`."""
        try:
            with remote.opened(self.url) as file, self._decompressed(file) as content:
                while chunk := content.read(size):
                    yield chunk
        except UNREADABLE as error:
            raise ContractError(f"{self.url} cannot be read: {error}; deliver it again") from error

    @contextmanager
    def seekable(self) -> Iterator[BinaryIO]:
        """The content as a file to jump about in; held in memory where it is compressed."""
        try:
            if self.url.lower().endswith(COMPRESSED):
                yield io.BytesIO(self.read())
                return
            with remote.opened(self.url) as file:
                yield file
        except OSError as error:
            raise ContractError(f"{self.url} cannot be read: {error}; deliver it again") from error

    def _decompressed(self, file: Any) -> Any:
        """A file as what is in it."""
        name = self.url.lower()
        if name.endswith(".gz"):
            return gzip.GzipFile(fileobj=file)
        if name.endswith(".zst"):
            return pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
        if not name.endswith(".zip"):
            return nullcontext(file)
        archive = zipfile.ZipFile(file)
        held = [info.filename for info in archive.infolist() if not info.is_dir()]
        if len(held) != 1:
            raise ContractError(
                f"{self.url} holds {len(held)} files ({', '.join(held[:3])}); expected one: "
                "unpack it, and name the folder"
            )
        return archive.open(held[0])

    def digest(self) -> str:
        """SHA-256 of the file as it lies there; raises ContractError where it cannot be had."""
        try:
            with remote.opened(self.url) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ContractError(f"{self.url} cannot be read: {error}; deliver it again") from error

    def stamp(self) -> str:
        """What its storage says of it, size and times; another when it was written to."""
        fs, path = remote.file_system(self.url)
        try:
            with remote.told(self.url):
                return str(fs.ukey(path))
        except OSError as error:
            raise ContractError(f"{self.url} cannot be read: {error}; deliver it again") from error


def find(data: str, encoding: str = "") -> list[Source]:
    """The data files that a path, glob or URL names, by name; in folders, `.json` is no data.

    Raises UsageError when there are none or no such encoding, ContractError for several
    folds at once, RemoteError where a URL's server cannot be asked.
    """
    _refuse_unknown(encoding)
    if not data:
        raise UsageError("no data named; give --data PATH: a file, a folder, a glob or a URL")
    with remote.told(data):
        fs, names, root, folder = _named(data)
    sources = [
        replace(source, name=name.removeprefix(root).lstrip("/"))
        for name in names
        if (source := _source(fs.unstrip_protocol(name))) is not None
    ]
    if folder:
        sources = [s for s in sources if s.kind != ".json"]
    if not sources:
        raise UsageError(
            f"--data {data}: no data file among {len(names)} files; "
            f"expected {', '.join(SUFFIXES)}, plain or with {', '.join(COMPRESSED)}"
        )
    _refuse_folds(data, sources)
    return [replace(s, encoding=encoding) for s in _delivered(data, sources)]


def _named(data: str) -> tuple[Any, list[str], str, bool]:
    """The files named, by name; where their names begin; and whether that is a folder named."""
    fs, path = remote.file_system(data)
    there = remote.exists(data)  # whatever characters it is called by
    if not any(c in path for c in "*?[") and not there:
        raise UsageError(f"--data {data}: nothing there; expected a file, a folder or a glob")
    folder = bool(fs.isdir(path))
    found = _visible(fs, path) if folder else [path] if there else fs.glob(path)
    names = sorted(name for name in found if fs.isfile(name))
    root = path if folder else posixpath.dirname(path if there else re.split(r"[*?[]", path)[0])
    return fs, names, root, folder


def _visible(fs: Any, folder: str) -> list[str]:
    """The files below a folder, but for hidden ones and those in hidden folders."""
    start = folder.rstrip("/")
    return [n for n in fs.find(start) if "/." not in n.removeprefix(start)]


def each_alone(sources: Sequence[Source]) -> list[list[Source]]:
    """Every file is read by itself."""
    return [[source] for source in sources]


def _refuse_unknown(encoding: str) -> None:
    try:
        known = not encoding or codecs.lookup(encoding)._is_text_encoding
    except LookupError:
        known = False
    if not known:
        raise UsageError(
            f"encoding={encoding}: there is none of that name; expected one such as utf-8, "
            "utf-16, latin-1, cp1252 or gb18030"
        )


def _source(url: str) -> Source | None:
    stem = url.rsplit("/", 1)[-1].lower()
    for suffix in COMPRESSED:
        stem = stem.removesuffix(suffix)
    kind = next((s for s in SUFFIXES if stem.endswith(s)), None)
    if kind is None:
        return None
    match = SPLIT_NAME.search(stem.removesuffix(kind))
    return Source(url, kind, SPLITS.get(match[1], match[1]) if match else None)


def _refuse_folds(data: str, sources: Sequence[Source]) -> None:
    folds = {m[2] for s in sources if (m := SPLIT_NAME.search(s.file.lower())) and m[2]}
    if len(folds) > 1:
        fold = min(folds)
        suffix = sources[0].file[sources[0].file.index(".") :]
        folder = sources[0].url.rsplit("/", 1)[0].removeprefix("file://")
        raise ContractError(
            f"--data {data}: the files are folds {', '.join(sorted(folds))} of one data set, in "
            f"which a learner stands several times; choose one: --data '{folder}/*{fold}{suffix}'"
        )


def _delivered(data: str, sources: list[Source]) -> list[Source]:
    """Keep the names' splits where there is something to train on and to test on.

    Raises ContractError where files of several sets, or of no split, lie among them.
    """
    if not {"train", "test"} <= {s.split for s in sources}:
        return [replace(s, split=None) for s in sources]
    stems = {SPLIT_NAME.sub("", SHARD.sub("", s.file.lower())) for s in sources if s.split}
    if len(stems) > 1:
        raise ContractError(
            f"--data {data}: several data sets with splits of their own lie here "
            f"({', '.join(sorted(stems))}); name one with a glob"
        )
    others = [s.name for s in sources if s.split is None]
    if others:
        raise ContractError(
            f"--data {data}: beside train and test lie {', '.join(others)}, of neither; name the "
            "data files with a glob, or give every file a name without train and test"
        )
    return sources
