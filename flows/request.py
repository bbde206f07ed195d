"""What was asked for, as a resolved recipe: said wrong, it is refused before anything starts."""

from __future__ import annotations

import re
from dataclasses import replace

from ray_jobs.errors import UsageError
from ray_jobs.families import recipe as named
from ray_jobs.recipe import Recipe

SERVICE = re.compile(r"[a-zA-Z0-9_-]*[a-zA-Z0-9][a-zA-Z0-9_-]*")


def resolve(
    name: str,
    service: str | None,
    data: str | None,
    settings: dict[str, str],
    workers: int | None,
    seed: int | None,
) -> Recipe:
    """A recipe with everything that was asked for; raises UsageError for what cannot be."""
    chosen = named(name).overridden(**settings)
    chosen = replace(
        chosen,
        service=service or chosen.service,
        data=data or chosen.data,
        workers=chosen.workers if workers is None else workers,
        seed=chosen.seed if seed is None else seed,
    )
    if not chosen.data:
        raise UsageError(f"recipe {name} needs data; say where with --data PATH")
    if not SERVICE.fullmatch(chosen.service):
        raise UsageError(
            f"service {chosen.service!r}: expected letters of the English alphabet, digits, - and _"
        )
    return chosen
