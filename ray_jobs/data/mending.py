"""Pieces with the repairs of their files: bad rows replaced, malformed lines become rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from ray_jobs import manifest, store
from ray_jobs.data import repairs as kept
from ray_jobs.data.pieces import OURS, Piece
from ray_jobs.data.quarantine import ID, identified
from ray_jobs.data.rewriting import rewritten
from ray_jobs.data.snapshot import Shelf
from ray_jobs.data.tables import read_parquet


def mended(
    files: Sequence[Sequence[str]], found: Sequence[Piece], shelf: Shelf
) -> tuple[list[Piece], bool]:
    """Pieces as their files were mended, and whether each had been so before."""
    there = store.sizes(store.join(shelf.store_uri, kept.FOLDER))
    made = [_mended(piece, names, there, shelf) for names, piece in zip(files, found, strict=True)]
    return [piece for piece, _ in made], all(known for _, known in made)


def _mended(
    piece: Piece, names: Sequence[str], there: Mapping[str, int], shelf: Shelf
) -> tuple[Piece, bool]:
    columns = sorted(piece.columns.difference(OURS))
    places = {name: kept.place(shelf.store_uri, name, columns) for name in names}
    places = {n: uri for n, uri in places.items() if uri.rsplit("/", 1)[-1] in there}
    if not places:
        return piece, True
    digests = {n: hashlib.sha256(store.read_bytes(uri)).hexdigest() for n, uri in places.items()}

    def work(uri: str) -> dict[str, Any]:
        repairs = pl.concat([read_parquet(place) for place in places.values()])
        return _written(piece, repairs, columns, shelf, uri).as_dict()

    about = {"group": shelf.group, "key": shelf.key.fingerprint}
    inputs = {"piece": piece.uri, "repairs": digests, **about}
    result, known = manifest.once(shelf.store_uri, "mend", inputs, work)
    return Piece.loads(result), known


def _written(
    piece: Piece, repairs: pl.DataFrame, columns: Sequence[str], shelf: Shelf, uri: str
) -> Piece:
    """A piece written again with its repairs, each row or line where the bad one stood."""
    torn = repairs.filter("torn").drop("file")

    def rows(frame: pl.DataFrame) -> pl.DataFrame:
        return kept.replaced(frame, repairs, columns, shelf.group)

    def bad(lines: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        lines = identified(lines, shelf.key)
        made = torn.join(lines.select(ID, "file", "line"), on=ID).sort("file", "line", kept.ORDER)
        left = lines.join(torn, on=ID, how="anti").drop(ID)
        return left, made.select(*columns, "bucket", "file", "line")

    made = rewritten(piece, rows, bad, uri=uri, group=shelf.group, key=shelf.key)
    note = f"{len(repairs)} rows stand as they were mended (lyceum data replay)"
    return replace(made, notes=[*made.notes, note])
