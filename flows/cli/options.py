"""Options that several commands take, and what is made of their words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ray_jobs.errors import UsageError

Data = Annotated[str | None, typer.Option(help="A file, a folder, a glob or an fsspec URL.")]
Service = Annotated[str | None, typer.Option(help="Name of the service; default: the recipe's.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting of the recipe: key=value.")]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="How figures are taken, where a family has several ways; default: the recipe's."
    ),
]
Workers = Annotated[int | None, typer.Option(help="Training workers; default: the recipe's.")]
Seed = Annotated[int | None, typer.Option(help="Seed of training; default: the recipe's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Report = Annotated[Path | None, typer.Option("--json", help="Write the report to a file.")]


def parsed(settings: list[str] | None) -> dict[str, str]:
    """`key=value` words as a dictionary; raises UsageError for another form."""
    pairs: dict[str, str] = {}
    for word in settings or []:
        key, separator, value = word.partition("=")
        if not separator:
            raise UsageError(f"--set {word!r}: expected key=value, such as budget.epochs=3")
        pairs[key] = value
    return pairs
