"""Pieces: what one unit of files said, under pseudonyms, each read once and kept.

A piece lies in runs of some hundred thousand rows, each sorted by bucket, so
that the rows of any share of learners are found without reading the others'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import reduce
from typing import Any

import polars as pl

from ray_jobs import store
from ray_jobs.data import runs
from ray_jobs.data.blocks import UNREADABLE_BYTES
from ray_jobs.data.multiset import Content
from ray_jobs.data.raw import PLACES, Raw, together
from ray_jobs.data.runs import Run
from ray_jobs.data.tables import write_parquet
from ray_jobs.privacy import Key

RUN_ROWS = 1 << 19
OURS = (*PLACES, "position", "bucket", "split")  # columns that are not the log's own
SAMPLE = 201  # times that tell the most common one of a run, where it stands out
QUARANTINE = pl.Schema(
    {"file": pl.String, "line": pl.Int64, "reason": pl.String, "sealed": pl.Binary}
)


@dataclass(frozen=True)
class Moment:
    """A time as it was written that may be the one of nearly all rows of a run."""

    text: str
    times: int  # rows of the run that have it
    dated: int  # rows of the run that have any


@dataclass(frozen=True)
class Piece:
    """What a unit of files said; its runs and its quarantine lie below `uri`."""

    uri: str
    content: Content  # of its rows
    faults: Content  # of what was malformed
    malformed: dict[str, int]  # by reason
    runs: list[Run]
    moments: list[Moment]  # of each run
    notes: list[str]  # what a person should know of the reading
    origin: str = ""  # of one written again: the piece that was read from the files

    @property
    def columns(self) -> set[str]:
        return {name for run in self.runs for name in run.schema}

    @property
    def one_file(self) -> bool:
        """Whether all its rows are of one file."""
        return "file" in self.runs[0].constants

    def as_dict(self) -> dict[str, Any]:
        contents = {"content": self.content.as_dict(), "faults": self.faults.as_dict()}
        return asdict(self) | contents

    @classmethod
    def loads(cls, value: dict[str, Any]) -> Piece:
        contents = {name: Content.loads(value[name]) for name in ("content", "faults")}
        runs = [Run(**run) for run in value["runs"]]
        moments = [Moment(**moment) for moment in value["moments"]]
        return cls(**{**value, **contents, "runs": runs, "moments": moments})


@dataclass(frozen=True)
class Written:
    """What is said of a run."""

    run: Run
    content: Content
    faults: Content
    moment: Moment
    notes: tuple[str, ...]
    bad: pl.DataFrame  # QUARANTINE


def write(
    raws: Iterable[Raw],
    *,
    uri: str,
    group: str,
    alias: Callable[[pl.DataFrame], pl.DataFrame],
    key: Key,
    constants: Mapping[str, str | None],
    origin: str = "",
) -> Piece:
    """Write what was read of a unit as a piece, with no more than two runs in memory.

    `alias` puts pseudonyms and buckets in the place of the `group`; it may leave rows
    out. What is the same for every row, the split and perhaps the file, are `constants`.
    """
    offset = 0
    split = pl.lit(constants["split"], pl.String).alias("split")

    def work(number: int, raw: Raw) -> Written:
        nonlocal offset
        rows = alias(raw.rows)
        place = pl.int_range(offset, offset + pl.len(), dtype=pl.Int64).alias("position")
        rows = rows.drop(constants, strict=False).with_columns(place)
        offset += len(rows)
        said = rows.drop(*PLACES, "position", group, strict=False)
        content = Content.of(said.with_columns(split))
        run = runs.write(store.join(uri, "runs", f"{number:05d}.arrow"), rows, constants)
        faults, bad = _faults(raw.malformed, key), sealed(raw.malformed, key)
        return Written(run, content, faults, _moment(rows), raw.notes, bad)

    done: list[Future[Written]] = []
    with ThreadPoolExecutor(1) as pool:  # a run is written while the next is read
        for number, raw in enumerate(_runs(raws)):
            if done:
                done[-1].result()
            done.append(pool.submit(work, number, raw))
    return replace(_piece(uri, [written.result() for written in done]), origin=origin)


def _piece(uri: str, done: Sequence[Written]) -> Piece:
    """What is said of a piece, of which the runs are there."""
    bad = pl.concat([written.bad for written in done])
    notes = [note for written in done for note in written.notes]
    notes += of_encoding(bad)
    write_parquet(quarantine(uri), bad)
    return Piece(
        uri=uri,
        content=reduce(Content.then, (written.content for written in done)),
        faults=reduce(Content.then, (written.faults for written in done)),
        malformed=dict(sorted(bad["reason"].value_counts().iter_rows())),
        runs=[written.run for written in done],
        moments=[written.moment for written in done],
        notes=list(dict.fromkeys(notes)),
    )


def of_encoding(bad: pl.DataFrame) -> list[str]:
    """Rows that hold other bytes than their encoding has are often of another."""
    return [
        f"{file}: {count} lines, the first of them {line}, hold bytes that its encoding has not; "
        "where it is in another, name it with --set encoding=latin-1, say"
        for file, count, line in bad.filter(pl.col("reason") == UNREADABLE_BYTES)
        .group_by("file", maintain_order=True)
        .agg(pl.len().alias("count"), pl.col("line").min())
        .iter_rows()
    ]


def quarantine(uri: str) -> str:
    """Where a piece keeps its malformed lines, sealed."""
    return store.join(uri, "quarantine.parquet")


def sealed(bad: pl.DataFrame, key: Key) -> pl.DataFrame:
    """Quarantine rows with their raw text encrypted."""
    seal = key.sealer()
    secrets = pl.Series("sealed", [seal(text or "") for text in bad["raw"]], dtype=pl.Binary)
    return bad.select("file", "line", "reason").with_columns(secrets).cast(QUARANTINE)


def _runs(raws: Iterable[Raw]) -> Iterator[Raw]:
    """Batches put together until they are worth a file; there is always one."""
    held: list[Raw] = []
    for raw in raws:
        held.append(raw)
        if sum(len(part.rows) + len(part.malformed) for part in held) >= RUN_ROWS:
            yield together(held)
            held = []
    if held:
        yield together(held)


def _moment(rows: pl.DataFrame) -> Moment:
    """Exact where the time is that of most rows, which is where it matters."""
    times = rows["time"].drop_nulls() if "time" in rows.columns else pl.Series([], dtype=pl.String)
    if times.is_empty():
        return Moment("", 0, 0)
    some = times.sample(SAMPLE, with_replacement=True, seed=0)
    text = some.mode().sort()[0]
    return Moment(text, int((times == text).sum()), len(times))


def _faults(malformed: pl.DataFrame, key: Key) -> Content:
    """Of the texts of malformed lines, hashed with the key, since they may hold anything."""
    texts = pl.Series("raw", [key.pseudonym(text) for text in malformed["raw"]], dtype=pl.String)
    return Content.of(texts.to_frame())
