"""`lyceum tune`: a search among the settings of a recipe, and the best of them as a command."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer

from flows.cli import console
from flows.cli.options import Data, Report, Seed, Service, Set, parsed

Search = Annotated[
    list[str] | None,
    typer.Option(
        help="What is searched: key=low..high or key=a,b,c; default: what the family suggests."
    ),
]
Trials = Annotated[int | None, typer.Option(help="How many settings are tried; default: 20.")]


def tune(
    recipe: Annotated[str, typer.Argument(help="A recipe, as `lyceum recipes` lists them.")],
    service: Service = None,
    data: Data = None,
    settings: Set = None,
    trials: Trials = None,
    search: Search = None,
    seed: Seed = None,
    json: Report = None,
) -> None:
    """Search for better settings of a recipe, judged on the validation split alone."""
    from flows.cli.session import absolute, session
    from flows.platform import begin_prefect

    pairs, source, words = parsed(settings), absolute(data), search or []
    from flows.request import planned, resolve
    from ray_jobs.data import sources

    resolved = resolve(recipe, service, source, pairs, None, seed)
    planned(resolved, pairs, words, trials)
    sources.find(resolved.data, resolved.encoding)
    ready = begin_prefect(session().settings)
    from flows.search import search as find

    ready()
    with console.progress():
        report = find(
            recipe=recipe,
            service=service,
            data=source,
            settings=pairs,
            searched=words,
            count=trials,
            seed=seed,
        )
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    show(report)


def show(report: dict[str, Any]) -> None:
    """The best trials, where to look further, and the command that trains the best."""
    from flows.search import COLUMNS, best_of

    trials = report["trials"]
    title = f"{report['service']}: the best of {len(trials)} trials"
    console.table(title, [*COLUMNS, *report["space"]], best_of(report))
    console.say(f"protocol {report['protocol']}")
    for name, url in report["links"].items():
        console.say(f"{name}: {url}")
    if report["cached"]:
        console.say(f"from cache: {', '.join(report['cached'])}")
    console.say(report["command"])
