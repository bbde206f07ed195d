"""A learner out of what services keep: the log of predictions, feedback, and logs made of it."""

from __future__ import annotations

import io

import polars as pl

from ray_jobs import store
from ray_jobs.serving import feedback, journal, outcomes


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
