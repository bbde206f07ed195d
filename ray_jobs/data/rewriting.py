"""Pieces written again: with rows that a person mended, or without those of somebody who left.

A piece never changes; another is written beside it, which is what its files
would have given had they come so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl

from ray_jobs.data import pieces, runs
from ray_jobs.data.pieces import Piece
from ray_jobs.data.quarantine import lines
from ray_jobs.data.raw import MALFORMED, Raw
from ray_jobs.privacy import Key


def rewritten(
    piece: Piece,
    rows: Callable[[pl.DataFrame], pl.DataFrame],
    bad: Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]],
    *,
    uri: str,
    group: str,
    key: Key,
) -> Piece:
    """A piece of other rows and malformed lines, a run at a time.

    `rows` is given those of one run after the other, in the order of the files; `bad`
    all malformed lines, of which it gives back those that stay so, and rows that stand
    for the others. Neither may change the columns.
    """
    before = lines(pieces.quarantine(piece.uri), key)
    malformed, made = bad(before)
    said = set(pieces.of_encoding(before))

    def raws() -> Iterator[Raw]:
        waiting, none = made, pl.DataFrame(schema=MALFORMED)
        notes = tuple(note for note in piece.notes if note not in said)
        for number, run in enumerate(piece.runs, start=1):
            frame = rows(runs.read(run).sort("position"))
            last = number == len(piece.runs)
            reached = pl.lit(frame["line"].max(), pl.Int64)  # null where a run is all malformed
            ready = pl.lit(last) | (pl.col("line") <= reached).fill_null(False)
            frame = pl.concat([frame, waiting.filter(ready)], how="diagonal")
            waiting = waiting.filter(~ready)
            # In a file rows stand by line; those of several are one table, without an order.
            frame = frame.sort("line", maintain_order=True) if piece.one_file else frame
            yield Raw(frame, malformed if last else none, notes)

    return pieces.write(
        raws(),
        uri=uri,
        group=group,
        alias=lambda frame: frame,
        key=key,
        constants=piece.runs[0].constants,
        origin=piece.origin or piece.uri,
    )
