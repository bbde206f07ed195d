"""Immutable snapshots: what a delivery said, with learners under pseudonyms, named by content.

The digest is that of the rows as a multiset, so order, file boundaries and
delivery times do not matter; a log without times keeps its order as its time.
A file that was read once is not read again, and a snapshot never changes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial, reduce
from typing import Any

import polars as pl

from ray_jobs import manifest, store
from ray_jobs.data import pieces, runs
from ray_jobs.data.multiset import Content
from ray_jobs.data.pieces import Piece
from ray_jobs.data.raw import Raw
from ray_jobs.data.runs import Run
from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError, StoreError
from ray_jobs.privacy import Aliases, Key

log = logging.getLogger(__name__)

SAME_TIME = 0.9  # share of rows; with more at one moment, the times tell nothing
BUCKETS = 2**64
FOLDER = "snapshots"  # of the store


@dataclass(frozen=True)
class Taken:
    """A piece as part of a snapshot."""

    uri: str
    files: list[str]
    rows: int
    malformed: int  # lines beside them
    runs: list[Run]  # their positions are those in the snapshot


@dataclass(frozen=True)
class Snapshot:
    """A delivery on the store: the pieces that it came in."""

    uri: str
    digest: str
    read: int  # rows of the delivery, malformed ones included
    malformed: dict[str, int]  # by reason; these rows are in quarantine already
    timed: bool  # whether rows carry times; if not, order of the files is their time
    notes: list[str] = field(default_factory=list)  # what a person should know of the reading
    pieces: list[Taken] = field(default_factory=list)

    @classmethod
    def loads(cls, value: Mapping[str, Any]) -> Snapshot:
        """From a record as JSON has it; raises StoreError for one of an earlier Lyceum."""
        if "pieces" not in value:
            raise StoreError(
                f"{value['uri']} was written by an earlier Lyceum; remove that folder and run again"
            )
        pieces = [
            Taken(**{**piece, "runs": [Run(**run) for run in piece["runs"]]})
            for piece in value["pieces"]
        ]
        return cls(**{**value, "pieces": pieces})

    @property
    def name(self) -> str:
        """What it is called in the store: 16 hexadecimal digits."""
        return self.uri.rsplit("/", 1)[-1]

    @property
    def files(self) -> list[str]:
        return [file for piece in self.pieces for file in piece.files]

    @property
    def runs(self) -> list[Run]:
        return [run for piece in self.pieces for run in piece.runs]

    @property
    def quarantines(self) -> list[str]:
        """Tables of malformed lines."""
        return [pieces.quarantine(piece.uri) for piece in self.pieces]

    def rows(self, share: int = 0, shares: int = 1) -> pl.DataFrame:
        """The rows of one of equal shares of all learners; of all of them, in their order.

        Rows without a learner are in the first share.
        """
        low, high = BUCKETS * share // shares, BUCKETS * (share + 1) // shares - 1
        rows = pl.concat([runs.read(run, low, high) for run in self.runs], how="diagonal")
        return rows.sort("position") if shares == 1 else rows


def ingest(
    units: Sequence[Sequence[Source]],
    read: Callable[[Sequence[Source]], Iterable[Raw]],
    *,
    group: str,
    ordered: bool = True,
    key: Key,
    store_uri: str,
    inputs: Mapping[str, Any] | None = None,
) -> tuple[Snapshot, bool]:
    """A delivery as a snapshot, and whether every file of it was known.

    Each unit of files is read by itself, once for the same `inputs`. With `ordered`,
    the order of a log without times is its time. Raises ContractError where a file
    keeps no contract.
    """
    aliases = Aliases(key)
    about = {"group": group, "key": key.fingerprint, **(inputs or {})}
    found: list[Piece] = []
    fresh = 0  # files read now
    for unit in units:
        write = partial(pieces.write, unit, group=group, aliases=aliases, key=key)
        piece, there = _taken(unit, read, write, about, store_uri)
        found.append(piece)
        fresh += 0 if there else len(unit)
    snapshot = _described(units, found, ordered=ordered, key=key, store_uri=store_uri)
    log.info(
        "ingest: %d rows from %d files, %d of them read now, %d malformed; snapshot %s",
        snapshot.read, len(snapshot.files), fresh, sum(snapshot.malformed.values()),
        snapshot.digest[:12],
    )  # fmt: skip
    return snapshot, fresh == 0


def _described(
    units: Sequence[Sequence[Source]],
    found: Sequence[Piece],
    *,
    ordered: bool,
    key: Key,
    store_uri: str,
) -> Snapshot:
    """The snapshot of some pieces, written where it is new."""
    _refuse_other_columns(units, found)
    names = [source.name for unit in units for source in unit]
    malformed = sum((Counter(piece.malformed) for piece in found), Counter[str]())
    content = reduce(Content.then, (piece.content for piece in found))
    faults = reduce(Content.then, (piece.faults for piece in found))
    if content.rows == 0:
        raise ContractError(
            f"no row could be read from {', '.join(names)}: {dict(malformed)}; "
            "a row has as many fields as the header has names"
        )
    timed = _timed(found)
    digest = manifest.digest([content.digest(ordered=ordered and not timed), key.fingerprint])
    # Malformed lines are part of the delivery, though not of what is learnt from it.
    name = manifest.digest([digest, faults.digest(ordered=False)])[:16]
    snapshot = Snapshot(
        uri=store.join(store_uri, FOLDER, name),
        digest=digest,
        read=content.rows + faults.rows,
        malformed=dict(sorted(malformed.items())),
        timed=timed,
        notes=[note for piece in found for note in piece.notes],
        pieces=_placed(units, found),
    )
    return _kept(snapshot)


def _placed(units: Sequence[Sequence[Source]], found: Sequence[Piece]) -> list[Taken]:
    placed: list[Taken] = []
    offset = 0
    for unit, piece in zip(units, found, strict=True):
        taken = Taken(
            uri=piece.uri,
            files=[source.name for source in unit],
            rows=piece.content.rows,
            malformed=piece.faults.rows,
            runs=[replace(run, offset=offset) for run in piece.runs],
        )
        placed.append(taken)
        offset += piece.content.rows
    return placed


def _kept(snapshot: Snapshot) -> Snapshot:
    """Write a snapshot, or give back the one of the same content that is there."""
    uri = store.join(snapshot.uri, "manifest.json")
    if store.exists(uri):
        there = Snapshot.loads(store.read_json(uri))
        if all(store.exists(place) for place in [*there.quarantines, *(r.uri for r in there.runs)]):
            return there
    store.write_json(uri, asdict(snapshot))
    return snapshot


def _taken(
    unit: Sequence[Source],
    read: Callable[[Sequence[Source]], Iterable[Raw]],
    write: Callable[..., Piece],
    about: Mapping[str, Any],
    store_uri: str,
) -> tuple[Piece, bool]:
    """The piece of a unit of files, and whether it was there."""
    digests = [source.digest() for source in unit]

    def work(uri: str) -> dict[str, Any]:
        piece = write(read(unit), uri=uri)
        _refuse_changed(unit, digests)
        return piece.as_dict()

    files = [[s.name, s.kind, s.split, d] for s, d in zip(unit, digests, strict=True)]
    piece, there = manifest.once(store_uri, "ingest", {"files": files, **about}, work)
    return Piece.loads(piece), there


def _refuse_changed(unit: Sequence[Source], digests: Sequence[str]) -> None:
    """What was read must be kept under what it was."""
    for source, digest in zip(unit, digests, strict=True):
        if source.digest() != digest:
            raise ContractError(
                f"{source.url} was written to while it was read; run again when it is whole"
            )


def _refuse_other_columns(units: Sequence[Sequence[Source]], found: Sequence[Piece]) -> None:
    """Files of one delivery are one table."""
    first = found[0].columns
    for unit, piece in zip(units, found, strict=True):
        if missing := sorted(first ^ piece.columns):
            here = "lacks" if set(missing) <= first else "differs in"
            raise ContractError(
                f"{unit[0].url} {here} {', '.join(missing[:5])} beside {units[0][0].url}; files of "
                "one delivery have the same columns: name those that belong together with a glob"
            )


def _timed(found: Sequence[Piece]) -> bool:
    """Whether rows carry times that tell them apart; a slip among constants does not."""
    moments = [moment for piece in found for moment in piece.moments]
    dated = sum(moment.dated for moment in moments)
    # A time of nearly all rows is that of nearly all rows of some run.
    usual = {m.text for m in moments if m.dated and m.times > SAME_TIME * m.dated}
    return dated > 0 and max(_counts(usual, found), default=0) <= SAME_TIME * dated


def _counts(times: set[str], found: Sequence[Piece]) -> list[int]:
    """Rows that stand at each of some times, as they are written."""
    counts: Counter[str] = Counter()
    for run in (run for piece in found for run in piece.runs if times):
        there = runs.texts(run, "time")
        counts.update(dict(there.filter(there.is_in(times)).value_counts().iter_rows()))
    return list(counts.values())
