"""The snapshots a store holds: what came when, what each was made of, and what two differ in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ray_jobs import manifest, remote, store
from ray_jobs.data.clean import COUNTS, CleanTable
from ray_jobs.data.snapshot import FOLDER, Snapshot, Taken
from ray_jobs.errors import UsageError

REPORT, PAGE = "report", "report.html"  # of a table that was refused: folder, page
DESCRIBE = "describe"  # the stage that tells of a snapshot, and the tables made of it
SHORTEST = 4  # characters that may stand for a snapshot's name


@dataclass(frozen=True)
class Entry:
    """A snapshot, when it was taken, and the one that it grew out of."""

    snapshot: Snapshot
    taken: datetime  # UTC
    parent: str  # name of the largest before it whose files it all has, if any


@dataclass(frozen=True)
class Difference:
    """The pieces of one snapshot that another has not."""

    gone: list[Taken]
    new: list[Taken]
    same: list[Taken]


def snapshots(store_uri: str) -> list[Entry]:
    """All snapshots of a store, the oldest first."""
    found = taken(store_uri)
    return [
        Entry(snapshot, when, parent(snapshot, [s for _, s in found[:place]]))
        for place, (when, snapshot) in enumerate(found)
    ]


def taken(store_uri: str) -> list[tuple[datetime, Snapshot]]:
    """When each snapshot of a store was taken (UTC), the oldest first."""
    folder = store.join(store_uri, FOLDER)
    names = [name for name in store.sizes(folder) if name.endswith(f"/{manifest.MANIFEST}")]
    uris = [store.join(folder, name) for name in sorted(names)]
    found = [(_written(uri), Snapshot.loads(store.read_json(uri))) for uri in uris]
    return sorted(found, key=lambda pair: pair[0])


def parent(of: Snapshot, earlier: Sequence[Snapshot]) -> str:
    """The name of the largest of some whose files a snapshot has all of, if any."""
    mine = of.origins
    smaller = [s for s in earlier if s.origins <= mine]
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


def tables(store_uri: str, snapshot: Snapshot) -> list[CleanTable]:
    """The clean tables that were made of a snapshot, refused ones included, the oldest first."""
    folder = store.join(store_uri, "stages", "clean")
    found = []
    for name in store.sizes(folder):
        if name.count("/") == 1 and name.endswith(f"/{COUNTS}"):
            uri = store.join(folder, name)
            table = CleanTable(**store.read_json(uri))
            if table.snapshot == snapshot.name:
                found.append((_written(uri), table))
    return [table for _, table in sorted(found, key=lambda pair: pair[0])]


def reports(store_uri: str, snapshot: Snapshot) -> list[str]:
    """The pages that describe what runs made of a snapshot, or why they made nothing."""
    told = (one["result"] for one in manifest.kept(store_uri, DESCRIBE))
    pages = [one["page"] for one in told if one.get("snapshot") == snapshot.name]
    refused = [table.uri for table in tables(store_uri, snapshot) if table.refused]
    return [*pages, *(store.join(uri, REPORT, PAGE) for uri in refused)]


def _written(uri: str) -> datetime:
    """When a file was written, in UTC."""
    fs, path = remote.file_system(uri)
    with remote.told(uri):
        moment: datetime = fs.modified(path)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
