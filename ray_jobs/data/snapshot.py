"""Immutable snapshots: what a delivery said, with learners under pseudonyms, named by content.

The digest is that of the rows as a multiset, so order, file boundaries and
delivery times do not matter; a log without times keeps its order as its time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any

import polars as pl

from ray_jobs import manifest, store
from ray_jobs.data import pieces, runs
from ray_jobs.data.multiset import Content
from ray_jobs.data.pieces import Piece
from ray_jobs.data.runs import Run
from ray_jobs.errors import ContractError, StoreError
from ray_jobs.privacy import Key

SAME_TIME = 0.9  # share of rows; with more at one moment, the times tell nothing
BUCKETS = 2**64
FOLDER = "snapshots"  # of the store


@dataclass(frozen=True)
class Shelf:
    """Where the snapshots of a kind of data are kept."""

    store_uri: str
    key: Key
    group: str  # column of pseudonyms
    ordered: bool = True  # the order of a log without times is its time


@dataclass(frozen=True)
class Taken:
    """A piece as part of a snapshot."""

    uri: str
    files: list[str]
    rows: int
    malformed: int  # lines beside them
    runs: list[Run]  # their positions are those in the snapshot
    origin: str = ""  # of one written again: the piece that was read from the files


@dataclass(frozen=True)
class Snapshot:
    """A delivery on the store: the pieces that it came in."""

    uri: str
    digest: str
    read: int  # rows of the delivery, malformed ones included
    malformed: dict[str, int]  # by reason; these rows are in quarantine already
    timed: bool  # whether rows carry times; if not, order of the files is their time
    group: str  # column of pseudonyms
    ordered: bool  # without times, the order of the files is their time
    notes: list[str] = field(default_factory=list)  # what a person should know of the reading
    pieces: list[Taken] = field(default_factory=list)

    @classmethod
    def loads(cls, value: Mapping[str, Any]) -> Snapshot:
        """From a record as JSON has it; raises StoreError for one of an earlier Lyceum."""
        if not {"pieces", "group"} <= value.keys():
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
    def columns(self) -> list[str]:
        """That of pseudonyms, and the log's own."""
        names = dict.fromkeys(name for run in self.runs for name in run.schema)
        return [self.group, *(n for n in names if n not in {self.group, *pieces.OURS})]

    @property
    def origins(self) -> set[str]:
        """The pieces that were read from its files, whatever became of them since."""
        return {piece.origin or piece.uri for piece in self.pieces}

    @property
    def places(self) -> list[str]:
        """Every file that it is made of."""
        return [*self.quarantines, *(run.uri for run in self.runs)]

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


def described(files: Sequence[Sequence[str]], found: Sequence[Piece], shelf: Shelf) -> Snapshot:
    """The snapshot of some pieces, each of some files, written where it is new.

    Raises ContractError where there is no row in them.
    """
    malformed = sum((Counter(piece.malformed) for piece in found), Counter[str]())
    content = reduce(Content.then, (piece.content for piece in found))
    faults = reduce(Content.then, (piece.faults for piece in found))
    if content.rows == 0:
        names = [name for group in files for name in group]
        raise ContractError(
            f"no row could be read from {', '.join(names)}: {dict(malformed)}; "
            "a row has as many fields as the header has names"
        )
    timed = _timed(found)
    ordered = shelf.ordered and not timed
    digest = manifest.digest([content.digest(ordered=ordered), shelf.key.fingerprint])
    # Malformed lines are part of the delivery, though not of what is learnt from it.
    name = manifest.digest([digest, faults.digest(ordered=False)])[:16]
    snapshot = Snapshot(
        uri=store.join(shelf.store_uri, FOLDER, name),
        digest=digest,
        read=content.rows + faults.rows,
        malformed=dict(sorted(malformed.items())),
        timed=timed,
        group=shelf.group,
        ordered=shelf.ordered,
        notes=[note for piece in found for note in piece.notes],
        pieces=_placed(files, found),
    )
    return _kept(snapshot)


def _placed(files: Sequence[Sequence[str]], found: Sequence[Piece]) -> list[Taken]:
    placed: list[Taken] = []
    offset = 0
    for names, piece in zip(files, found, strict=True):
        taken = Taken(
            uri=piece.uri,
            files=list(names),
            rows=piece.content.rows,
            malformed=piece.faults.rows,
            runs=[replace(run, offset=offset) for run in piece.runs],
            origin=piece.origin,
        )
        placed.append(taken)
        offset += piece.content.rows
    return placed


def _kept(snapshot: Snapshot) -> Snapshot:
    """Write a snapshot, or give back the one of the same content that is there."""
    uri = store.join(snapshot.uri, manifest.MANIFEST)
    if store.exists(uri):
        there = Snapshot.loads(store.read_json(uri))
        if all(store.exists(place) for place in there.places):
            return there
    store.write_json(uri, asdict(snapshot))
    return snapshot


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
