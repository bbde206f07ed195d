"""The snapshots a store holds: what came when, what each was made of, and what two differ in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec

from ray_jobs import manifest, store
from ray_jobs.data.snapshot import FOLDER, Snapshot, Taken
from ray_jobs.errors import UsageError

DESCRIBE = "describe"  # the stage that tells of a snapshot, and the tables made of it
SHORTEST = 4  # characters that may stand for a snapshot's name


@dataclass(frozen=True)
class Entry:
    """A snapshot, when it was taken, and the one that it grew out of."""

    snapshot: Snapshot
    taken: datetime  # UTC
    parent: str  # name of the largest that it holds all of, if any


@dataclass(frozen=True)
class Difference:
    """The pieces of one snapshot that another has not."""

    gone: list[Taken]
    new: list[Taken]
    same: list[Taken]


def snapshots(store_uri: str) -> list[Entry]:
    """All snapshots of a store, the oldest first."""
    found = taken(store_uri)
    everything = [snapshot for _, snapshot in found]
    return [Entry(snapshot, when, parent(snapshot, everything)) for when, snapshot in found]


def taken(store_uri: str) -> list[tuple[datetime, Snapshot]]:
    """When each snapshot of a store was taken (UTC), the oldest first."""
    fs, path = fsspec.core.url_to_fs(store.join(store_uri, FOLDER))
    names = sorted(fs.ls(path, detail=False)) if fs.exists(path) else []
    found = []
    for name in (name.rstrip("/").rsplit("/", 1)[-1] for name in names):
        uri = store.join(store_uri, FOLDER, name, manifest.MANIFEST)
        if store.exists(uri):
            when = fs.modified(f"{path}/{name}/{manifest.MANIFEST}")
            found.append((_in_utc(when), Snapshot.loads(store.read_json(uri))))
    return sorted(found, key=lambda pair: pair[0])


def parent(of: Snapshot, everything: Sequence[Snapshot]) -> str:
    """The name of the largest that a snapshot holds all of, if any."""
    mine = {piece.uri for piece in of.pieces}
    smaller = [s for s in everything if {piece.uri for piece in s.pieces} < mine]
    return max(smaller, key=lambda s: s.read).name if smaller else ""


def named(store_uri: str, name: str) -> Entry:
    """The snapshot whose name or digest begins so; raises UsageError where there is not one."""
    entries = snapshots(store_uri)
    found = [
        entry
        for entry in entries
        if any(text.startswith(name) for text in (entry.snapshot.name, entry.snapshot.digest))
        and len(name) >= SHORTEST
    ]
    if len(found) != 1:
        there = ", ".join(entry.snapshot.name for entry in entries) or "none yet"
        raise UsageError(
            f"{len(found)} snapshots are called {name}; there are {there}. "
            f"Give {SHORTEST} characters or more of one"
        )
    return found[0]


def difference(before: Snapshot, after: Snapshot) -> Difference:
    """What came and what went between two snapshots."""
    known = {piece.uri for piece in before.pieces}
    there = {piece.uri for piece in after.pieces}
    return Difference(
        gone=[piece for piece in before.pieces if piece.uri not in there],
        new=[piece for piece in after.pieces if piece.uri not in known],
        same=[piece for piece in after.pieces if piece.uri in known],
    )


def tables(store_uri: str, snapshot: Snapshot) -> list[dict[str, Any]]:
    """The clean tables that were made of a snapshot, as they were recorded."""
    kept = manifest.kept(store_uri, "clean")
    return [one["result"] for one in kept if one["inputs"]["snapshot"] == snapshot.name]


def reports(store_uri: str, snapshot: Snapshot) -> list[str]:
    """The pages that describe what runs made of a snapshot."""
    told = (one["result"] for one in manifest.kept(store_uri, DESCRIBE))
    return [one["page"] for one in told if one.get("snapshot") == snapshot.name]


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
