"""Ingestion: the files of a delivery to a snapshot, each file read once and kept as a piece.

A file that was read once is not read again, whatever else is delivered beside
it; rows that a person mended stand in the place of what they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ray_jobs import manifest, store
from ray_jobs.data import mending, pieces
from ray_jobs.data.forgotten import forgotten
from ray_jobs.data.names import shown
from ray_jobs.data.pieces import Piece
from ray_jobs.data.raw import Raw
from ray_jobs.data.snapshot import Shelf, Snapshot, described
from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError
from ray_jobs.privacy import Aliases, Key

log = logging.getLogger(__name__)


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
    shelf = Shelf(store_uri, key, group, ordered)
    aliases = Aliases(key)
    about = {"group": group, "key": key.fingerprint, **(inputs or {})}
    found: list[Piece] = []
    fresh = 0  # files read now
    for unit in units:
        write = partial(_written, unit, read, shelf=shelf, aliases=aliases)
        piece, there = _taken(unit, write, about, store_uri)
        found.append(piece)
        fresh += 0 if there else len(unit)
    _refuse_other_columns(units, found)
    files = [[source.name for source in unit] for unit in units]
    mended, known = mending.mended(files, found, shelf)
    snapshot = described(files, mended, shelf)
    log.info(
        "ingest: %d rows from %d files, %d of them read now, %d malformed; snapshot %s",
        snapshot.read, len(snapshot.files), fresh, sum(snapshot.malformed.values()),
        snapshot.digest[:12],
    )  # fmt: skip
    return snapshot, known and fresh == 0


def _written(
    unit: Sequence[Source],
    read: Callable[[Sequence[Source]], Iterable[Raw]],
    uri: str,
    *,
    shelf: Shelf,
    aliases: Aliases,
) -> Piece:
    """The piece of a unit of files, read now."""
    erased = forgotten(shelf.store_uri, shelf.key)
    read_ = (replace(raw, malformed=erased.unnamed(raw.malformed)) for raw in read(unit))
    piece = pieces.write(
        read_,
        uri=uri,
        group=shelf.group,
        alias=lambda rows: erased.others(aliases.replaced(rows, shelf.group), shelf.group),
        key=shelf.key,
        constants={"split": unit[0].split} | ({"file": unit[0].name} if len(unit) == 1 else {}),
    )
    if forgotten(shelf.store_uri, shelf.key) != erased:
        store.remove(uri)
        raise ContractError(f"a learner was erased while {unit[0].url} was read; run again")
    return piece


def _taken(
    unit: Sequence[Source],
    write: Callable[[str], Piece],
    about: Mapping[str, Any],
    store_uri: str,
) -> tuple[Piece, bool]:
    """The piece of a unit of files, and whether it was there."""
    before = [source.stamp() for source in unit]
    digests = [source.digest() for source in unit]

    def work(uri: str) -> dict[str, Any]:
        piece = write(uri)
        _refuse_changed(unit, before)
        return piece.as_dict()

    files = [[s.name, s.kind, s.split, d] for s, d in zip(unit, digests, strict=True)]
    piece, there = manifest.once(store_uri, "ingest", {"files": files, **about}, work)
    return Piece.loads(piece), there


def _refuse_changed(unit: Sequence[Source], before: Sequence[str]) -> None:
    """What was read must be kept under what it was."""
    for source, stamp in zip(unit, before, strict=True):
        if source.stamp() != stamp:
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
                f"{unit[0].url} {here} {shown(missing)} beside {units[0][0].url}; files of "
                "one delivery have the same columns: name those that belong together with a glob"
            )
