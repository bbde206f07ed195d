"""The progress of a training run: JSON lines on the store, appended and never changed.

Whoever trains appends; whoever watches follows. Neither knows the other, so
either may be killed and started again without the record losing a line.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from ray_jobs import store

logger = logging.getLogger(__name__)

# Of a search also: a trial there is (its number as step), and in a trial's own events its end.
Kind = Literal["started", "epoch", "finished", "failed", "trial", "ended"]
SYSTEM = "system/"  # before a metric of a node, as MLflow has it: system/node-0/cpu_...


@dataclass(frozen=True)
class Event:
    """One thing that happened in one attempt at training."""

    kind: Kind
    attempt: int  # from 1; each start of the workers is one
    step: int = 0  # epochs done by then
    metrics: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)  # JSON values
    time: float = field(default_factory=time.time)  # unix seconds


def append(uri: str, event: Event) -> None:
    """Add one line; on a disk in a single write, so that no reader sees two mixed."""
    line = orjson.dumps(dataclasses.asdict(event), option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
    if not store.is_local(uri):
        before = store.read_bytes(uri) if store.exists(uri) else b""
        store.write_bytes(uri, _whole_lines(before) + line)
        return
    path = store.local_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A writer that lost its power left half a line: close it, or it swallows ours.
    torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, b"\n" + line if torn else line)
    finally:
        os.close(handle)


def tail(uri: str, offset: int = 0) -> tuple[list[Event], int]:
    """Events written after a byte offset, and the offset to go on from.

    A line that is still being written is left for the next call.
    """
    if not store.exists(uri):
        return [], offset
    lines = store.read_bytes(uri)[offset:]
    whole = lines[: lines.rfind(b"\n") + 1]
    found = (_parsed(line, uri) for line in whole.splitlines() if line)
    return [event for event in found if event is not None], offset + len(whole)


def read(uri: str) -> list[Event]:
    """All events so far, in the order written; none where nothing was written yet."""
    return tail(uri)[0]


def by_step(events: Iterable[Event]) -> dict[int, Event]:
    """The epochs, each once: of a step that was done twice, the last attempt's."""
    return {event.step: event for event in events if event.kind == "epoch"}


def finished(uri: str, digest: str, about: Mapping[str, Any], **detail: Any) -> Event:
    """The last event of a job: its artifact's digest and how it came about."""
    return Event(
        kind="finished",
        attempt=last_attempt(uri),
        step=about["epochs"],
        metrics={"rows_per_s": about["rows_per_s"]},
        detail={
            "digest": digest,
            "best_epoch": about["best_epoch"],
            "workers": about["workers"],
            **detail,
        },
    )


def failed(uri: str, error: BaseException) -> Event:
    """The last event of an attempt that ended without a model."""
    reason = str(error) or type(error).__name__
    return Event("failed", last_attempt(uri), detail={"error": reason})


def next_attempt(uri: str) -> int:
    """The number of the attempt that starts now."""
    return max((event.attempt for event in read(uri)), default=0) + 1


def last_attempt(uri: str) -> int:
    """The number of the attempt that started last; 1 where none got that far."""
    return max(1, next_attempt(uri) - 1)


class Follower:
    """Reads on from where it stopped, and gives each epoch once, whatever restarted."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._offset = 0  # bytes read
        self._steps: set[int] = set()  # epochs given

    def poll(self) -> list[Event]:
        """What is new since the last call."""
        found, self._offset = tail(self._uri, self._offset)
        return [event for event in found if self._is_new(event)]

    def _is_new(self, event: Event) -> bool:
        if event.kind != "epoch":
            return True
        known = event.step in self._steps
        self._steps.add(event.step)
        return not known


def _whole_lines(data: bytes) -> bytes:
    return data if data.endswith(b"\n") or not data else data + b"\n"


def _parsed(line: bytes, uri: str) -> Event | None:
    try:
        return Event(**orjson.loads(line))
    except (orjson.JSONDecodeError, TypeError):
        logger.warning("%s: skipped a torn line of %d bytes", uri, len(line))
        return None
