"""Tables on the store: a Parquet file, or a folder of them that lie one behind the other.

A part is written whole or not at all; whoever writes a folder says with a
manifest when it has all its parts.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import polars as pl

from ray_jobs import store
from ray_jobs.errors import StoreError

Given = TypeVar("Given")
Made = TypeVar("Made")
AT_ONCE = 2  # parts in memory
SUFFIX = ".parquet"
COMPRESSION: Final = "lz4"  # half larger than zstd; without statistics in half the time


def write_parquet(uri: str, frame: pl.DataFrame) -> str:
    """Write a file at once or not at all; returns the digest of what was written."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression=COMPRESSION, statistics=False)
    store.write_bytes(uri, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def write_part(uri: str, number: int, frame: pl.DataFrame) -> str:
    """Write a part of a table; returns the digest of what was written."""
    return write_parquet(store.join(uri, f"part-{number:05d}{SUFFIX}"), frame)


def parts(uri: str) -> list[str]:
    """The files of a table, in their order; raises StoreError where there is none."""
    if uri.endswith(SUFFIX):
        return [uri]
    names = sorted(name for name in store.sizes(uri) if name.endswith(SUFFIX))
    if not names:
        raise StoreError(f"no table at {uri}")
    return [store.join(uri, name) for name in names]


def each(work: Callable[[Given], Made], given: Iterable[Given]) -> list[Made]:
    """What work makes of each, in their order, a few at a time; after an error none is begun."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = [pool.submit(work, one) for one in given]
        try:
            return [one.result() for one in made]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def scan(uri: str) -> pl.LazyFrame:
    """A table to be read as far as it is needed; raises StoreError when it is missing."""
    return pl.concat([_scanned(part) for part in parts(uri)], how="diagonal")


def read_parquet(uri: str) -> pl.DataFrame:
    """A whole table; raises StoreError when it is missing."""
    return pl.concat([_read(part) for part in parts(uri)], how="diagonal")


def _scanned(uri: str) -> pl.LazyFrame:
    if store.is_local(uri) and store.local_path(uri).is_file():
        return pl.scan_parquet(store.local_path(uri), glob=False)
    return pl.scan_parquet(io.BytesIO(store.read_bytes(uri)))


def _read(uri: str) -> pl.DataFrame:
    if store.is_local(uri) and store.local_path(uri).is_file():
        return pl.read_parquet(store.local_path(uri), glob=False)
    return pl.read_parquet(io.BytesIO(store.read_bytes(uri)))
