"""The log of predictions: partitioned Parquet on the store, written behind the requests.

It is for looking back, so it may lose what the last seconds held when a replica is
killed, and drops rows rather than slow a request down; what it drops is counted.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import polars as pl

from ray_jobs import store
from ray_jobs.errors import LyceumError
from ray_jobs.serving.receipt import Receipt

if TYPE_CHECKING:
    from ray_jobs.serving.forgetting import Erased

log = logging.getLogger(__name__)

FOLDER = "predictions"  # of the store
FLUSH_S = 5.0
MOST = 50_000  # entries that wait to be written
MOST_BYTES = 32 * 2**20  # of what they say
SCHEMA = pl.Schema(
    {
        "id": pl.String(),  # of the prediction, in its prediction_id
        "position": pl.Int32(),  # among the predictions of one answer
        "time": pl.Float64(),  # unix seconds
        "version": pl.String(),
        "lineage": pl.String(),
        "request": pl.String(),  # x-request-id
        "key": pl.String(),  # id of the key that called
        "learner": pl.String(),  # alias
        "row": pl.String(),  # what it was about, as JSON
        "prediction": pl.String(),  # as JSON: a number, or one for each class
    }
)


class Entry(NamedTuple):
    """One answer. Thousands wait: as objects of Python's they kept its collector busy."""

    note: bytes  # a receipt, encoded
    request: str
    key: str

    @property
    def size(self) -> int:
        """Bytes of what it says."""
        return len(self.note) + len(self.request)


@dataclass
class Journal:
    """A replica's part of the log."""

    store_uri: str
    service: str
    lineage: str
    most: int = MOST
    most_bytes: int = MOST_BYTES
    erased: Erased | None = None  # of whom nothing is written
    dropped: int = 0
    written: int = 0
    entries: deque[Entry] = field(default_factory=deque)  # of requests' thread and the writer's
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _failing: bool = False
    _came: int = 0  # bytes, ever; counted by the requests' thread
    _went: int = 0  # bytes, ever; counted by the writer's

    def add(self, entry: Entry) -> None:
        """Remember one answer; where too many wait already, count it as dropped."""
        if len(self.entries) >= self.most or self._came - self._went >= self.most_bytes:
            self.dropped += 1
        else:
            self._came += entry.size
            self.entries.append(entry)

    def start(self) -> None:
        """Write every few seconds from now on."""
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(FLUSH_S)

    def flush(self) -> None:
        """Write what waits now; what cannot be written waits on, and the reason is logged once."""
        taken = [self.entries.popleft() for _ in range(len(self.entries))]
        if not taken:
            return
        try:
            rows = table(taken, self.lineage)
            write(self.store_uri, FOLDER, self.service, rows, self.erased)
        except (LyceumError, OSError) as error:
            if not self._failing:
                log.warning("predictions wait to be written: %s", error)
            self._failing = True
            self.entries.extendleft(reversed(taken))
        else:
            self._failing = False
            self.written += len(taken)
            self._went += sum(entry.size for entry in taken)

    def _write(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self.flush()
        self.flush()


def table(entries: Iterable[Entry], lineage: str) -> pl.DataFrame:
    """A row for each prediction."""
    notes = ((entry, Receipt.decoded(entry.note)) for entry in entries)
    rows = [
        (
            note.id,
            position,
            float(note.time_s),
            note.version,
            lineage,
            entry.request,
            entry.key,
            note.learner,
            as_json(row) if row is not None else None,
            as_json(prediction),
        )
        for entry, note in notes
        for position, (prediction, row) in enumerate(zip_longest(note.predictions, note.rows))
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def write(
    store_uri: str, folder: str, service: str, rows: pl.DataFrame, erased: Erased | None = None
) -> None:
    """Put rows beside those that are there, in a file of their own, under today's date.

    Those of the erased are left out.
    """
    now = datetime.now(UTC)
    name = f"{now:%H%M%S}-{time.monotonic_ns():x}-{os.urandom(6).hex()}.parquet"
    uri = store.join(store_uri, folder, service, f"date={now:%Y-%m-%d}", name)
    left = erased.others(rows) if erased else rows
    if left.is_empty():
        return
    _put(uri, left)
    while erased and erased.overtaken and len(again := erased.others(left)) < len(left):
        left = again  # their erasure may have looked for files before this one was there
        _put(uri, left)


def _put(uri: str, rows: pl.DataFrame) -> None:
    data = io.BytesIO()
    rows.write_parquet(data)
    store.write_bytes(uri, data.getvalue())


def as_json(value: Any) -> str:
    return orjson.dumps(value).decode()
