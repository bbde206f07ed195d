"""What was asked for, as a resolved recipe: said wrong, it is refused before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ray_jobs.errors import UsageError
from ray_jobs.families import family
from ray_jobs.families import recipe as named
from ray_jobs.recipe import Recipe
from ray_jobs.tuning.space import Domain, parsed

TRIALS = 20  # of a search that says nothing else
PROTOCOL = "columns.protocol"  # what --protocol is short for
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


def under(protocol: str | None, name: str, settings: dict[str, str]) -> dict[str, str]:
    """Settings of a recipe with the protocol that was asked for among them, if one was.

    Raises UsageError where its family has but one, or the settings name one too.
    """
    if protocol is None:
        return settings
    if PROTOCOL in settings:
        raise UsageError(f"a protocol is given to --protocol and to --set {PROTOCOL}; give one")
    recipe = named(name)
    if not hasattr(recipe.columns, "protocol"):
        only = family(recipe.family).protocol(recipe.columns).words
        raise UsageError(
            f"--protocol {protocol}: figures of the family {recipe.family} are taken in one way "
            f"alone ({only}); leave it out"
        )
    return {**settings, PROTOCOL: protocol}


def planned(
    recipe: Recipe, fixed: Mapping[str, str], words: Sequence[str], count: int | None
) -> tuple[dict[str, Domain], int]:
    """What is searched and in how many trials; raises UsageError for what cannot be.

    Without words it is what the family suggests for the recipe's architecture, but
    for what is fixed.
    """
    trials = TRIALS if count is None else count
    if trials < 1:
        raise UsageError(f"--trials {trials}: expected at least 1")
    both = sorted({word.partition("=")[0] for word in words} & set(fixed))
    if both:
        raise UsageError(f"{both[0]} is given to --set and to --search; it is fixed or searched")
    if words:
        return parsed(words, recipe), trials
    spec = recipe.spec.name
    suggested = family(recipe.family).spaces.get(spec, {})
    space = {key: domain for key, domain in suggested.items() if key not in fixed}
    if not space:
        raise UsageError(
            f"nothing is left to search: {recipe.family} suggests no settings of {spec} "
            "that are not fixed; name some with --search KEY=LOW..HIGH or KEY=A,B,C"
        )
    return space, trials
