"""`lyceum data`: the snapshots there are, what each was made of, and what two differ in."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from flows.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray_jobs.data.history import Entry
    from ray_jobs.data.snapshot import Taken

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
        told = {"tables": made, "reports": reports(at, entry.snapshot)}
        _say(_facts(entry) | {"pieces": [_piece(p) for p in entry.snapshot.pieces]} | told)
        return
    for name, value in _facts(entry).items():
        console.say(f"{name}: {value}")
    for note in entry.snapshot.notes:
        console.say(f"note: {note}")
    _pieces("pieces", entry.snapshot.pieces)
    for table in made:
        bad = ", ".join(f"{count} {reason}" for reason, count in table["quarantined"].items())
        console.say(
            f"table: {table['kept']} kept, {sum(table['quarantined'].values())} quarantined"
            f"{f' ({bad})' if bad else ''}, {table['merged']} merged, {table['repeats']} repeats; "
            f"in {table['uri']}"
        )
    for page in reports(at, entry.snapshot):
        console.say(f"report: {page}")


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


def _store() -> str:
    from ray_jobs import settings as installation

    return installation.read().store_uri


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
