"""What a model says of everything in a clean table, as Parquet, a piece of the groups at a time.

A piece is written whole or not at all and notes last that it is there, so that
a scoring that was killed goes on where it was. The model is asked as a service
asks it: through the predictor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from ray_jobs import artifact, store
from ray_jobs.artifact import Artifact
from ray_jobs.data.tables import parts, scan, write_part
from ray_jobs.errors import ServiceError, UsageError
from ray_jobs.predictor import predict

log = logging.getLogger(__name__)

PIECE_ROWS = 100_000  # scored at a time, so that any number of them can be
PREDICTIONS = "predictions"  # the table of every row; families add others of their own
REPORT = "score.json"  # written last: without it the folder is not whole
PLAN = "scoring.json"  # written first: of what the folder is
NOTES = "pieces"  # what is there so far
INNER = ("bucket", "split", "scored")  # columns of a clean table that are ours alone


@dataclass(frozen=True)
class Scoring:
    """Which version says something of which table, and where that goes."""

    model: str  # folder of the artifact
    digest: str  # of the artifact
    table: str  # folder of the clean table
    content: str  # digest of the table
    out: str

    @property
    def plan(self) -> dict[str, Any]:
        """What must agree for what is in the folder to be of this scoring."""
        return {"model": self.digest, "table": self.content, "piece_rows": PIECE_ROWS}


@dataclass(frozen=True)
class Piece:
    """Some rows of a part of a table, all of some groups."""

    number: int
    part: str  # URI
    start: int
    rows: int


def run(
    scoring: Scoring, group: str, each: Callable[[list[Piece]], Iterator[Any]]
) -> dict[str, int]:
    """Score what is not scored yet; returns the rows of each table that was made.

    `each` scores pieces in whatever order, somewhere, and gives them back.
    Raises UsageError where the folder holds something else.
    """
    _claim(scoring)
    todo = pieces(scoring.table, group)
    noted = store.sizes(store.join(scoring.out, NOTES))
    missing = [piece for piece in todo if _note(piece) not in noted]
    log.info("score: %d pieces, %d of them there already", len(todo), len(todo) - len(missing))
    for done, _ in enumerate(each(missing), 1):
        log.info("score: %d of %d pieces", len(todo) - len(missing) + done, len(todo))
    told = [store.read_json(store.join(scoring.out, NOTES, _note(piece))) for piece in todo]
    return {name: sum(rows[name] for rows in told) for name in (told[0] if told else ())}


def pieces(table: str, group: str) -> list[Piece]:
    """A table in pieces of about PIECE_ROWS rows, no group in two of them."""
    found: list[Piece] = []
    for part in parts(table):
        sizes = scan(part).select(pl.col(group).rle().struct.field("len")).collect()[:, 0]
        ends = np.cumsum(sizes.to_numpy().astype(np.int64))
        start = 0
        while len(ends) and start < ends[-1]:
            # The last group that ends within the size, or the one that is larger by itself.
            at = max(int(np.searchsorted(ends, start + PIECE_ROWS, side="right")) - 1, 0)
            end = int(ends[at]) if ends[at] > start else int(ends[at + 1])
            found.append(Piece(len(found), part, start, end - start))
            start = end
    return found


def score(scoring: Scoring, piece: Piece) -> int:
    """Score one piece, and note that it is there; returns its number."""
    model = _model(scoring.model, scoring.digest)
    rows = scan(piece.part).slice(piece.start, piece.rows).collect()
    tables = {PREDICTIONS: predictions(model, rows)}
    tables |= {name: made(model, rows) for name, made in model.family.profiles.items()}
    for name, table in tables.items():
        write_part(store.join(scoring.out, name), piece.number, table)
    note = store.join(scoring.out, NOTES, _note(piece))
    store.write_json(note, {name: len(table) for name, table in tables.items()})
    return piece.number


def predictions(model: Artifact, rows: pl.DataFrame) -> pl.DataFrame:
    """The scored rows of a clean table, each with its prediction from what came before it."""
    examples = model.family.examples(rows, model.vocabulary)
    names = list(model.family.api.outputs(model.vocabulary))
    outcomes = [part.reshape(-1, len(names)) for part in predict(model, examples)]
    values = np.concatenate([np.empty((0, len(names)), np.float32), *outcomes])
    told = [pl.Series(name, values[:, column]) for column, name in enumerate(names)]
    known = rows.filter("scored").select(pl.exclude(INNER))
    return known.with_columns(told)


@lru_cache(maxsize=1)
def _model(uri: str, digest: str) -> Artifact:
    """The artifact, read once in a process; raises ServiceError when it is another."""
    model = artifact.fetched(uri)
    if model.digest != digest:
        raise ServiceError(
            f"{uri} has digest {model.digest[:12]}, but {digest[:12]} was registered; "
            "train again or roll back"
        )
    return model


def _claim(scoring: Scoring) -> None:
    place = store.join(scoring.out, PLAN)
    if store.exists(place):
        if store.read_json(place) != scoring.plan:
            raise UsageError(
                f"{scoring.out} holds scores by another version, or of other data; "
                "name another folder, or remove it"
            )
        return
    if store.sizes(scoring.out):
        raise UsageError(f"{scoring.out} holds other files; name a folder that is empty or new")
    store.write_json(place, scoring.plan)


def _note(piece: Piece) -> str:
    return f"{piece.number:05d}.json"


def on_ray(scoring: Scoring) -> Callable[[list[Piece]], Iterator[Any]]:
    """Score pieces as Ray tasks of one CPU each, wherever there is room; an error is its own."""
    import ray

    task = ray.remote(num_cpus=1)(score)

    def each(todo: list[Piece]) -> Iterator[Any]:
        # Futures, since Ctrl-C within `ray.wait` comes out as an error of Ray's own.
        for done in as_completed([task.remote(scoring, piece).future() for piece in todo]):
            try:
                yield done.result()
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from error

    return each


def known(scoring: Scoring) -> dict[str, Any] | None:
    """The report of the same scoring, where it was finished before."""
    place = store.join(scoring.out, REPORT)
    if not store.exists(place):
        return None
    _claim(scoring)
    report: dict[str, Any] = store.read_json(place)
    return report


def finish(scoring: Scoring, report: dict[str, Any]) -> None:
    """Say that all is there, and what it is."""
    store.write_json(store.join(scoring.out, REPORT), report)
    store.remove(store.join(scoring.out, NOTES))
