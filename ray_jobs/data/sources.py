"""Which files `--data` names: a file, a folder, a glob or any fsspec URL, in a fixed order.

Also reads off their names the split they were delivered in, and refuses a
folder that holds several folds of one data set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import fsspec

from ray_jobs.errors import ContractError, UsageError

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".ndjson", ".json")
COMPRESSED = (".gz",)
SPLIT_NAME = re.compile(r"(?:^|[_\-.])(train|valid|validation|dev|test)(\d*)(?=[_\-.]|$)")
SPLITS = {"valid": "validation", "dev": "validation"}


@dataclass(frozen=True)
class Source:
    """One file of a delivery."""

    url: str
    kind: str  # suffix without compression, such as ".csv"
    split: str | None  # train, validation or test, as its name says

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def read(self) -> bytes:
        """The whole content, decompressed."""
        with fsspec.open(self.url, "rb", compression="infer") as file:
            data: bytes = file.read()
        return data

    def digest(self) -> str:
        """SHA-256 of the file as it lies there."""
        with fsspec.open(self.url, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()


def find(data: str) -> list[Source]:
    """The data files that a path, glob or URL names, by name.

    Raises UsageError when there are none, ContractError for several folds at once.
    """
    fs, path = fsspec.core.url_to_fs(data)
    if not any(c in path for c in "*?[") and not fs.exists(path):
        raise UsageError(f"--data {data}: nothing there; expected a file, a folder or a glob")
    pattern = f"{path.rstrip('/')}/**" if fs.isdir(path) else path
    names = [name for name in sorted(fs.glob(pattern)) if fs.isfile(name)]
    sources = [s for name in names if (s := _source(fs.unstrip_protocol(name))) is not None]
    if fs.isdir(path):
        sources = [s for s in sources if s.kind != ".json"]
    if not sources:
        raise UsageError(
            f"--data {data}: no data file among {len(names)} files; "
            f"expected {', '.join(SUFFIXES)}, plain or .gz"
        )
    return _one_fold(data, _honoured(sources))


def _source(url: str) -> Source | None:
    stem = url
    for suffix in COMPRESSED:
        stem = stem.removesuffix(suffix)
    kind = next((s for s in SUFFIXES if stem.lower().endswith(s)), None)
    if kind is None:
        return None
    match = SPLIT_NAME.search(stem.rsplit("/", 1)[-1].lower()[: -len(kind)])
    return Source(url, kind, SPLITS.get(match[1], match[1]) if match else None)


def _honoured(sources: Sequence[Source]) -> list[Source]:
    """Keep the names' splits only when there is something to train on and to test on."""
    if {"train", "test"} <= {s.split for s in sources}:
        return list(sources)
    return [Source(s.url, s.kind, None) for s in sources]


def _one_fold(data: str, sources: list[Source]) -> list[Source]:
    folds = {m[2] for s in sources if (m := SPLIT_NAME.search(s.name.lower())) and m[2]}
    if len(folds) > 1:
        fold = min(folds)
        raise ContractError(
            f"--data {data}: the files are folds {', '.join(sorted(folds))} of one data set, in "
            f"which a learner stands several times; choose one: --data '{data.rstrip('/')}/*{fold}.csv.gz'"
        )
    stems = {SPLIT_NAME.sub("", s.name.lower()) for s in sources if s.split}
    if len(stems) > 1:
        raise ContractError(
            f"--data {data}: several data sets with splits of their own lie here "
            f"({', '.join(sorted(stems))}); name one with a glob"
        )
    return sources
