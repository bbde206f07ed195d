"""Immutable snapshots: what a delivery said, with learners under pseudonyms, named by content.

The digest is that of the rows as a multiset, so order, file boundaries and
delivery times do not matter; a log without times keeps its order as its time.
What was said once is not written again: a snapshot never changes.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

import polars as pl

from ray_jobs import manifest, store
from ray_jobs.data.raw import Raw, together
from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key, buckets

log = logging.getLogger(__name__)

SAME_TIME = 0.9  # share of rows; with more at one moment, the times tell nothing

QUARANTINE = pl.Schema(
    {"file": pl.String, "line": pl.Int64, "reason": pl.String, "sealed": pl.Binary}
)


@dataclass(frozen=True)
class Snapshot:
    """A delivery on the store: rows.parquet and quarantine.parquet below `uri`."""

    uri: str
    digest: str
    read: int  # rows of the delivery, malformed ones included
    malformed: dict[str, int]  # by reason; these rows are in quarantine already
    timed: bool  # whether rows carry times; if not, order of the files is their time
    files: list[str]
    notes: list[str] = field(default_factory=list)  # what a person should know of the reading

    @property
    def rows(self) -> str:
        return store.join(self.uri, "rows.parquet")

    @property
    def quarantine(self) -> str:
        return store.join(self.uri, "quarantine.parquet")


def ingest(
    units: Sequence[Sequence[Source]],
    read: Callable[[Sequence[Source]], Iterable[Raw]],
    *,
    group: str,
    ordered: bool = True,
    key: Key,
    store_uri: str,
) -> Snapshot:
    """Read a delivery into a snapshot, each unit of files by itself.

    With `ordered`, the order of a log without times is its time. Raises
    ContractError where a file keeps no contract.
    """
    sources = [source for unit in units for source in unit]
    raws = [together(read(unit)) for unit in units]
    labelled = [
        raw.rows.with_columns(pl.lit(unit[0].split, pl.String).alias("split"))
        for unit, raw in zip(units, raws, strict=True)
    ]
    _refuse_other_columns(units, labelled)
    rows = pl.concat(labelled, how="diagonal").with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("position")
    )
    rows = rows.with_columns(buckets(rows[group]).alias("bucket"), key.pseudonyms(rows[group]))
    malformed = pl.concat([raw.malformed for raw in raws])
    snapshot = _described(rows, malformed, sources, ordered=ordered, key=key, store_uri=store_uri)
    snapshot = replace(snapshot, notes=[note for raw in raws for note in raw.notes])
    log.info(
        "ingest: %d rows from %d files, %d malformed; snapshot %s",
        snapshot.read, len(sources), len(malformed), snapshot.digest[:12],
    )  # fmt: skip
    if rows.is_empty():
        raise ContractError(
            f"no row could be read from {', '.join(snapshot.files)}: {snapshot.malformed}; "
            "a row has as many fields as the header has names"
        )
    return _kept(snapshot, rows, malformed, key)


def _described(
    rows: pl.DataFrame,
    malformed: pl.DataFrame,
    sources: Sequence[Source],
    *,
    ordered: bool,
    key: Key,
    store_uri: str,
) -> Snapshot:
    timed = tells_time(rows)
    digest = rows_digest(rows, ordered=ordered and not timed)
    # Malformed lines are part of the delivery, though not of what is learnt from it.
    faults = sorted(key.pseudonym(raw) for raw in malformed["raw"])
    return Snapshot(
        uri=store.join(store_uri, "snapshots", manifest.digest([digest, faults])[:16]),
        digest=digest,
        read=len(rows) + len(malformed),
        malformed=dict(sorted(malformed["reason"].value_counts().iter_rows())),
        timed=timed,
        files=[source.name for source in sources],
    )


def _kept(snapshot: Snapshot, rows: pl.DataFrame, malformed: pl.DataFrame, key: Key) -> Snapshot:
    """Write a snapshot, or give back the one of the same content that is there."""
    uri = store.join(snapshot.uri, "manifest.json")
    if store.exists(uri):
        return Snapshot(**store.read_json(uri))
    write_parquet(snapshot.rows, rows)
    write_parquet(snapshot.quarantine, sealed(malformed, key))
    store.write_json(uri, asdict(snapshot))
    return snapshot


def _refuse_other_columns(units: Sequence[Sequence[Source]], parts: Sequence[pl.DataFrame]) -> None:
    """Files of one delivery are one table."""
    first = set(parts[0].columns)
    for unit, part in zip(units, parts, strict=True):
        if missing := sorted(first ^ set(part.columns)):
            here = "lacks" if set(missing) <= first else "differs in"
            raise ContractError(
                f"{unit[0].url} {here} {', '.join(missing[:5])} beside {units[0][0].url}; files of "
                "one delivery have the same columns: name those that belong together with a glob"
            )


def tells_time(rows: pl.DataFrame) -> bool:
    """Whether rows carry times that tell them apart; a slip among constants does not."""
    if "time" not in rows.columns:
        return False
    counts = rows["time"].drop_nulls().value_counts()["count"].to_list()
    return len(counts) > 1 and max(counts) <= SAME_TIME * sum(counts)


def rows_digest(rows: pl.DataFrame, *, ordered: bool) -> str:
    """SHA-256 of rows as a multiset; with `ordered` their position counts as well."""
    dropped = ["file", "line", *([] if ordered else ["position"])]
    content = rows.drop(dropped, strict=False)
    content = content.select(sorted(content.columns))
    # Sorting by every column makes the text the same for every order of the same rows.
    text = content.sort(content.columns, nulls_last=True).write_csv(null_value="\x00")
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(bad: pl.DataFrame, key: Key) -> pl.DataFrame:
    """Quarantine rows with their raw text encrypted."""
    secrets = pl.Series("sealed", [key.seal(text or "") for text in bad["raw"]], dtype=pl.Binary)
    return bad.select("file", "line", "reason").with_columns(secrets).cast(QUARANTINE)


def write_parquet(uri: str, frame: pl.DataFrame) -> str:
    """Write a whole table at once or not at all; returns the digest of what was written."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    store.write_bytes(uri, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def read_parquet(uri: str) -> pl.DataFrame:
    """Read a table of the store; raises StoreError when it is missing."""
    if store.is_local(uri) and store.local_path(uri).is_file():
        return pl.read_parquet(store.local_path(uri))
    return pl.read_parquet(io.BytesIO(store.read_bytes(uri)))
