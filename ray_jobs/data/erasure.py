"""Erasure: all that a store holds of one learner goes, and a receipt says what was changed.

The tombstone comes first, so that nothing of them is taken in again; what holds
them is found by looking, so that an erasure which was killed is done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ray_jobs import manifest, store
from ray_jobs.data import history, repairs, runs
from ray_jobs.data.clean import COUNTS, CleanTable
from ray_jobs.data.forgotten import FOLDER, Forgotten, Tombstone
from ray_jobs.data.pieces import Piece, quarantine
from ray_jobs.data.quarantine import lines
from ray_jobs.data.rewriting import rewritten
from ray_jobs.data.snapshot import FOLDER as SNAPSHOTS
from ray_jobs.data.snapshot import Shelf, Snapshot, described
from ray_jobs.data.tables import SUFFIX, read_parquet, scan, write_parquet
from ray_jobs.errors import ContractError, StoreError
from ray_jobs.privacy import Key, buckets
from ray_jobs.serving.forgetting import forget

PIECES = ("ingest", "mend", "erase")  # stages whose results are pieces


@dataclass(frozen=True)
class Rewritten:
    """A snapshot that held the learner, and the one that stands for it."""

    before: str  # digest
    after: str  # digest; empty where nothing was left


@dataclass
class Receipt:
    """What an erasure changed; it names nobody. Kept as the tombstone."""

    learner: str  # hash of the pseudonym
    words: list[str]  # hashes of the words of the id
    key: str  # fingerprint of the key
    asked: str  # ISO 8601, UTC
    finished: str = ""
    snapshots: dict[str, Rewritten] = field(default_factory=dict)  # by name of the one that went
    pieces: list[str] = field(default_factory=list)  # readings of files, which went
    tables: list[str] = field(default_factory=list)  # what was made of them, which went
    repairs: int = 0  # mended rows that were theirs
    answers: int = 0  # rows of what services predicted of them, and were told
    versions: list[str] = field(default_factory=list)  # models that had learnt from them

    @property
    def digests(self) -> set[str]:
        """Digests of data that held rows of theirs."""
        return {s.before for s in self.snapshots.values() if s.before != s.after}


class Erasure:
    """The erasure of one learner from a store; again is no harm, also after a kill."""

    def __init__(self, learner: str, store_uri: str, key: Key):
        self._store, self._key = store_uri, key
        self._pseudonym, self._alias = key.pseudonym(learner), key.alias(learner)
        self._bucket = int(buckets(pl.Series([learner]))[0])
        stone = Tombstone.of(learner, key)
        self._gone = Forgotten((stone,), key)
        self._held: dict[str, str] = {}  # pieces with something of theirs, and their group
        self._made: list[str] = []  # what was made of them
        self._uri = store.join(store_uri, FOLDER, f"{stone.learner}.json")
        self.receipt = self._begun(stone)

    def _begun(self, stone: Tombstone) -> Receipt:
        if store.exists(self._uri):
            found = store.read_json(self._uri)
            found["snapshots"] = {n: Rewritten(**s) for n, s in found["snapshots"].items()}
            return Receipt(**found)
        fingerprint = self._key.fingerprint
        return Receipt(stone.learner, sorted(stone.words), fingerprint, asked=_now())

    def write(self) -> None:
        """Put the tombstone, which is the receipt as far as it is true, on the store."""
        store.write_json(self._uri, asdict(self.receipt))

    def rewrite(self) -> None:
        """Write what held the learner without them; nothing is removed yet."""
        self.write()
        self._held = dict(self._pieces())
        self.receipt.pieces = sorted({*self.receipt.pieces, *self._held})
        for entry in history.snapshots(self._store):
            if any(piece.uri in self._held for piece in entry.snapshot.pieces):
                self._rewrite(entry.snapshot)
        self._made = self._tables()
        self.receipt.tables = sorted({*self.receipt.tables, *self._made})
        self.write()

    def remove(self) -> None:
        """Remove all that `rewrite` found; pieces last, since by them all else is found again."""
        self.receipt.repairs += self._scrubbed()
        self.receipt.answers += forget(self._store, self._alias)
        snapshots = [store.join(self._store, SNAPSHOTS, name) for name in self.receipt.snapshots]
        for uri in [*self._made, *snapshots, *self._held]:
            _dropped(uri)
        self.receipt.finished = _now()
        self.write()

    def _pieces(self) -> Iterator[tuple[str, str]]:
        """URI and group of each piece that holds rows of the learner, or a line that names them."""
        for made in (made for stage in PIECES for made in manifest.kept(self._store, stage)):
            about, piece = made["inputs"], Piece.loads(made["result"])
            if about["key"] == self._key.fingerprint and self._holds(piece, about["group"]):
                yield piece.uri, about["group"]

    def _holds(self, piece: Piece, group: str) -> bool:
        for run in piece.runs:
            rows = runs.read(run, self._bucket, self._bucket)
            if len(self._gone.others(rows, group)) < len(rows):
                return True
        bad = lines(quarantine(piece.uri), self._key)
        return len(self._gone.unnamed(bad)) < len(bad)

    def _rewrite(self, snapshot: Snapshot) -> None:
        group = next(self._held[p.uri] for p in snapshot.pieces if p.uri in self._held)
        shelf = Shelf(self._store, self._key, group, snapshot.ordered)
        found = [self._without(taken.uri, shelf) for taken in snapshot.pieces]
        try:
            after = described([taken.files for taken in snapshot.pieces], found, shelf).digest
        except ContractError:  # nobody else was in it
            after = ""
        self.receipt.snapshots[snapshot.name] = Rewritten(snapshot.digest, after)

    def _without(self, uri: str, shelf: Shelf) -> Piece:
        """A piece as it is without the learner."""
        made = manifest.made_in(uri)
        if made is None:
            raise StoreError(f"{uri} is gone, of which a snapshot is made; run its recipe again")
        piece = Piece.loads(made["result"])
        if uri not in self._held:
            return piece

        def work(into: str) -> dict[str, Any]:
            none = pl.DataFrame(schema={"line": pl.Int64()})
            return rewritten(
                piece,
                lambda rows: self._gone.others(rows, shelf.group),
                lambda bad: (self._gone.unnamed(bad), none),
                uri=into,
                group=shelf.group,
                key=shelf.key,
            ).as_dict()

        about = {"group": shelf.group, "key": shelf.key.fingerprint}
        inputs = {"piece": uri, "without": self.receipt.learner, **about}
        return Piece.loads(manifest.once(self._store, "erase", inputs, work)[0])

    def _tables(self) -> list[str]:
        """Folders of stages that hold the learner, are half-written, or come of such."""
        every = {
            uri: (stage, manifest.made_in(uri))
            for stage in manifest.stages(self._store)
            for uri in manifest.folders(self._store, stage)
        }
        found = [
            uri
            for uri, (stage, made) in every.items()
            if (made is None if stage in PIECES else self._in_folder(uri))
        ]
        contents = {made["result"].get("content") for u in found if (made := every[u][1])}
        told = [uri for uri, (_, made) in every.items() if made and _of(made) & contents]
        return list(dict.fromkeys([*found, *told]))

    def _in_folder(self, uri: str) -> bool:
        """Whether a clean table is of a snapshot that went, or any table has a row of theirs."""
        counts = store.join(uri, COUNTS)
        if store.exists(counts):
            table = CleanTable(**store.read_json(counts))
            if table.snapshot in self.receipt.snapshots:
                return True
        names = [name for name in store.sizes(uri) if name.endswith(SUFFIX)]
        return any(self._in_table(store.join(uri, name)) for name in names)

    def _in_table(self, uri: str) -> bool:
        rows = scan(uri)
        schema = rows.collect_schema()
        if "bucket" not in schema:
            return False  # no rows of learners
        theirs = rows.filter(pl.col("bucket") == self._bucket, _any_text(self._pseudonym))
        return not theirs.head(1).collect().is_empty()

    def _scrubbed(self) -> int:
        """Take the learner's rows out of all repairs; how many they were."""
        folder, gone = store.join(self._store, repairs.FOLDER), 0
        for uri in (store.join(folder, name) for name in store.sizes(folder)):
            rows = read_parquet(uri)
            left = rows.filter(~_any_text(self._pseudonym))
            gone += len(rows) - len(left)
            if left.is_empty():
                store.remove(uri)
            elif len(left) < len(rows):
                write_parquet(uri, left)
        return gone


def _any_text(text: str) -> pl.Expr:
    """Whether a row says so anywhere."""
    return pl.any_horizontal(pl.col(pl.String) == text).fill_null(False)


def _of(made: dict[str, Any]) -> set[str]:
    """The contents of the tables that a result tells of."""
    given = (made["inputs"].get(name) for name in ("table", "splits"))
    return {str(one["content"]) if isinstance(one, dict) else str(one) for one in given if one}


def _dropped(uri: str) -> None:
    """Remove a folder, first what says that it is whole."""
    for name in (manifest.MANIFEST, COUNTS):
        store.remove(store.join(uri, name))
    store.remove(uri)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
