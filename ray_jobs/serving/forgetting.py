"""A learner out of what services keep: the log of predictions, feedback, and logs made of it."""

from __future__ import annotations

import io
import math
import time

import polars as pl

from ray_jobs import store
from ray_jobs.data import forgotten
from ray_jobs.privacy import Key
from ray_jobs.serving import feedback, journal, outcomes

LOOK_S = 2.0  # between two looks of one writer at who was erased
KNOWN_S = 2 * LOOK_S  # after which no writer puts back what `forget` takes out


class Erased:
    """Of whom nothing may be written, as one writer knows it, who asks in the thread it writes in.

    What it let through is on the store before KNOWN_S have passed since it looked, and so
    before an erasure looks for files, or else `overtaken` says that it is to be asked again.
    """

    def __init__(self, store_uri: str, key: Key) -> None:
        self._folder = store.join(store_uri, forgotten.FOLDER)
        self._of_alias, self._hashed = key.of_alias, key.hasher("tombstone")
        self._gone: set[str] = set()  # hashes of pseudonyms
        self._seen_s = -math.inf  # by the monotonic clock

    @property
    def overtaken(self) -> bool:
        """Whether an erasure may have looked for files already of whom this knows nothing yet."""
        return time.monotonic() > self._seen_s + KNOWN_S

    def others(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows (`learner`: an alias) but for those of the erased; raises as the store does."""
        if time.monotonic() > self._seen_s + LOOK_S:
            self._look()
        aliases = rows["learner"].unique().drop_nulls() if self._gone else ()
        gone = [alias for alias in aliases if self._knows(alias)]
        return rows.filter(~pl.col("learner").is_in(gone).fill_null(False)) if gone else rows

    def _look(self) -> None:
        begin = time.monotonic()
        # A tombstone is called as the learner is in it, so that none need be read.
        self._gone = {name.removesuffix(".json") for name in store.sizes(self._folder)}
        self._seen_s = begin

    def _knows(self, alias: str) -> bool:
        meant = self._of_alias(alias)
        return meant is not None and self._hashed(meant[0]) in self._gone


def forget(store_uri: str, alias: str) -> int:
    """Rewrite what holds rows of an alias without them; how many they were. Again is no harm."""
    gone = 0
    for folder in (journal.FOLDER, feedback.FOLDER):
        for uri in _files(store.join(store_uri, folder), ".parquet"):
            rows = pl.read_parquet(store.read_bytes(uri))
            left = rows.filter(pl.col("learner").ne_missing(alias))
            gone += len(rows) - len(left)
            if left.is_empty():
                store.remove(uri)
            elif len(left) < len(rows):
                data = io.BytesIO()
                left.write_parquet(data)
                store.write_bytes(uri, data.getvalue())
    for uri in _files(store.join(store_uri, outcomes.LOGS), ".jsonl"):
        # It is made again, without them, by who asks for it.
        if alias.encode() in store.read_bytes(uri):
            store.remove(uri)
    return gone


def _files(folder: str, suffix: str) -> list[str]:
    return [store.join(folder, name) for name in store.sizes(folder) if name.endswith(suffix)]
