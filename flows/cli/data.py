"""`lyceum data`: the snapshots there are, what each was made of, and what two differ in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from flows.cli import console
from ray_jobs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray_jobs.data.clean import CleanTable
    from ray_jobs.data.history import Entry
    from ray_jobs.data.snapshot import Snapshot, Taken
    from ray_jobs.settings import Settings

data = typer.Typer(
    name="data",
    help="Show the snapshots of the store: what was ingested, and what became of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A snapshot's name or digest, or how it begins.")]
WHEN = "%Y-%m-%d %H:%M:%S"  # UTC


@data.command("list")
def list_(json: AsJson = False) -> None:
    """List the snapshots of the store, the oldest first."""
    from ray_jobs.data.history import snapshots

    found = snapshots(_store())
    if json:
        _say([_facts(entry) for entry in found])
    elif not found:
        console.say("no snapshot yet; lyceum run RECIPE --data PATH takes one")
    else:
        rows = [[str(value) for value in _facts(entry).values()] for entry in found]
        console.table("snapshots", list(_facts(found[0])), rows)


@data.command()
def show(snapshot: Name, json: AsJson = False) -> None:
    """Show a snapshot: its files, and the clean tables that were made of it."""
    from ray_jobs.data.history import named, reports, tables

    at = _store()
    entry = named(at, snapshot)
    made = tables(at, entry.snapshot)
    if json:
        pieces = [_piece(piece) for piece in entry.snapshot.pieces]
        of = {"tables": [asdict(table) for table in made], "reports": reports(at, entry.snapshot)}
        _say(_facts(entry) | {"pieces": pieces} | of)
        return
    for name, value in _facts(entry).items():
        console.say(f"{name}: {value}")
    for note in entry.snapshot.notes:
        console.say(f"note: {note}")
    _pieces("pieces", entry.snapshot.pieces)
    for table in made:
        console.say(_told(table))
    for page in reports(at, entry.snapshot):
        console.say(f"report: {page}")


@data.command()
def replay(
    snapshot: Name,
    file: Annotated[
        str | None, typer.Argument(help="A table of mended rows; any form a log may have.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the bad rows here, to be mended.")
    ] = None,
) -> None:
    """Mend what is in quarantine: write the bad rows to a file, or take mended ones in.

    The next run of the same data has the mended rows in the place of the bad ones.
    """
    from ray_jobs.data.history import named

    if (file is None) == (write is None):
        raise UsageError(
            "give either --write FILE, to have the bad rows written there, or a FILE of mended ones"
        )
    at = _installation()
    found = named(at.store_uri, snapshot).snapshot
    if write is not None:
        _write_bad_rows(found, at, write)
    else:
        _admit(found, at, str(file))


@data.command()
def diff(before: Name, after: Name, json: AsJson = False) -> None:
    """Show which files came, and which went, between two snapshots."""
    from ray_jobs.data.history import difference, named

    at = _store()
    one, other = (named(at, name).snapshot for name in (before, after))
    found = difference(one, other)
    parts = {"gone": found.gone, "new": found.new, "same": found.same}
    if json:
        _say({name: [_piece(piece) for piece in pieces] for name, pieces in parts.items()})
        return
    if one.digest == other.digest:
        console.say("the same rows")
    for name, pieces in parts.items():
        console.say(f"{name}: {len(pieces)} pieces, {sum(piece.rows for piece in pieces)} rows")
        if name != "same":
            _pieces(name, pieces)


@data.command()
def pseudonyms(
    roster: Annotated[Path, typer.Argument(help="A CSV or Parquet file that lists learners.")],
    out: Annotated[Path, typer.Option("--out", help="CSV file to write, which must be new.")],
    column: Annotated[
        str | None, typer.Option("--column", help="Which column names them; else the first.")
    ] = None,
) -> None:
    """Write a list of learners with their pseudonyms, to find whom scores are about."""
    from ray_jobs import store
    from ray_jobs.data.roster import read, with_pseudonyms
    from ray_jobs.privacy import load_key

    found, name = read(roster, column)
    told = with_pseudonyms(found, name, load_key(_installation().key_file, make=False))
    if out.exists():
        raise UsageError(f"{out} is there already; name a new file")
    try:
        store.write_secret(out, told.write_csv())
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error}; name another place") from error
    console.say(
        f"{len(told)} learners by column {name!r} in {out}; it names people: keep it as the list"
    )


def _write_bad_rows(snapshot: Snapshot, at: Settings, path: Path) -> None:
    import polars as pl

    from ray_jobs import store
    from ray_jobs.data.blocks import UNREADABLE
    from ray_jobs.data.quarantine import ID, bad_rows
    from ray_jobs.privacy import load_key

    rows = bad_rows(snapshot, at.store_uri, load_key(at.key_file))
    if path.exists():
        raise UsageError(f"{path} is there already; name a new file, so that no mended row is lost")
    # What bytes could not be read is no text that could be read again either.
    rows = rows.with_columns(pl.col("raw").str.replace_all(UNREADABLE, "?", literal=True))
    try:
        store.write_secret(path, rows.write_csv())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}; name another place") from error
    console.say(
        f"{len(rows)} bad rows in {path}, readable: it may name people. Mend their columns (who "
        "stands under a pseudonym may stay so; others are written as the log writes them), leave "
        f"{ID} as it is, and give the file to lyceum data replay {snapshot.name}"
    )


def _admit(snapshot: Snapshot, at: Settings, file: str) -> None:
    from flows.platform.locks import held, lock
    from ray_jobs.data.repairs import admit
    from ray_jobs.data.sources import find
    from ray_jobs.privacy import load_key

    sources = find(file)
    if len(sources) != 1:
        raise UsageError(f"{file} is {len(sources)} files; give one")
    with held(lock(at, "data", "replay"), "another replay", console.say):
        done = admit(sources[0], snapshot, at.store_uri, load_key(at.key_file))
    console.say(
        f"{done.mended} bad rows mended, {done.known} had been so before, {done.left} left as they "
        "are; the next run of this data has them"
    )


def _told(table: CleanTable) -> str:
    bad = ", ".join(f"{count} {reason}" for reason, count in table.quarantined.items())
    return (
        f"table: {table.kept} kept, {sum(table.quarantined.values())} quarantined"
        f"{f' ({bad})' if bad else ''}, {table.merged} merged, {table.repeats} repeats; "
        f"in {table.uri}{f'; refused: {table.refused}' if table.refused else ''}"
    )


def _installation() -> Settings:
    from ray_jobs import settings as installation

    return installation.read()


def _store() -> str:
    return _installation().store_uri


def _facts(entry: Entry) -> dict[str, Any]:
    snapshot = entry.snapshot
    return {
        "snapshot": snapshot.name,
        "digest": snapshot.digest[:12],
        "taken": entry.taken.strftime(WHEN),
        "rows": snapshot.read,
        "malformed": sum(snapshot.malformed.values()),
        "files": len(snapshot.files),
        "timed": snapshot.timed,
        "parent": entry.parent,
    }


def _piece(piece: Taken) -> dict[str, Any]:
    facts = asdict(piece)
    return {name: facts[name] for name in ("files", "rows", "malformed", "uri")}


def _pieces(title: str, pieces: Sequence[Taken]) -> None:
    if pieces:
        rows = [[", ".join(p.files), str(p.rows), str(p.malformed), p.uri] for p in pieces]
        console.table(title, ["files", "rows", "malformed", "lies in"], rows)


def _say(value: Any) -> None:
    console.say(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
