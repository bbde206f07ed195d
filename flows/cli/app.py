"""The commands of `lyceum`: each a few lines round what does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from flows.cli import console
from flows.cli.data import data as snapshots
from flows.cli.feedback import feedback
from flows.cli.keys import keys
from flows.cli.options import AsJson, Data, Protocol, Report, Seed, Service, Set, Workers, parsed
from flows.cli.scoring import score
from flows.cli.tuning import tune
from ray_jobs.errors import LyceumError

app = typer.Typer(
    name="lyceum",
    help="Turn logs of what learners did into services that applications call.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(snapshots)
app.add_typer(keys)
app.command()(tune)
app.command()(score)
app.command()(feedback)


@app.callback()
def root() -> None:
    """Turn logs of what learners did into services that applications call.

    Any command takes --debug to show the traceback of an error.
    """


@app.command()
def demo(
    family: Annotated[
        str | None, typer.Option(help="Which family to show, as `lyceum families` lists them.")
    ] = None,
    data: Data = None,
    keep: Annotated[bool, typer.Option(help="Leave the platform up.")] = False,
    json: Report = None,
) -> None:
    """Do the main job from nothing: data, training, a live endpoint, an answered request."""
    from flows.cli.session import absolute, session

    at = session()
    from flows.demo import demonstrate
    from ray_jobs.families import showcase

    demonstrate(at, family or showcase(), data=absolute(data), keep=keep, report=json)


@app.command()
def up() -> None:
    """Start Prefect, MLflow and Ray with Serve on this machine, as one platform."""
    from flows.cli.session import session
    from flows.platform import up as start

    at = session(use_platform=False)
    platform = start(at.settings, console.say)
    console.say(f"up: services at {platform.services_url}, stop with: lyceum down")
    console.say(f"    MLflow {platform.mlflow_tracking_uri}, Prefect {platform.prefect_ui}")
    from flows.services import republish

    for line in republish(at.settings, platform):
        console.say(line)


@app.command()
def down() -> None:
    """Stop the platform of this machine, and whatever killed runs left behind."""
    from flows.platform import down as stop
    from flows.platform import reap
    from ray_jobs import settings as installation

    settings = installation.read()
    stop(settings, console.say)
    reap(settings)
    console.say("down")


@app.command()
def status(json: AsJson = False) -> None:
    """Tell what is up, where it answers, and which services are live."""
    from flows.cli.session import session

    at = session(ask=False)
    from flows.services import status as everything

    found = everything(at.settings)
    if json:
        console.say(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    for name, value in found.items():
        if not isinstance(value, list):
            console.say(f"{name}: {value}")
    _rows("processes", found.get("processes", []))
    _rows("services", found["services"])


@app.command()
def erase(
    learner: Annotated[
        str, typer.Argument(help="The id as the logs have it; - reads it from standard input.")
    ],
    json: AsJson = False,
) -> None:
    """Erase a learner: their rows, what was made of them, and whatever of them comes again."""
    from flows.cli.session import session

    at = session()
    from flows.erase import erase as forget
    from flows.erase import told

    receipt = forget(at.settings, sys.stdin.readline() if learner == "-" else learner)
    if json:
        console.say(orjson.dumps(receipt, option=orjson.OPT_INDENT_2).decode())
        return
    for line in told(receipt):
        console.say(line)


@app.command()
def doctor() -> None:
    """Check this machine: versions, disk, memory, ports, keys."""
    from flows.platform import doctor as examine
    from ray_jobs import settings as installation

    checks = examine(installation.read())
    rows = [[c.state, c.name, c.found, c.remedy] for c in checks]
    console.table("doctor", ["state", "check", "found", "remedy"], rows)
    if any(c.state == "fail" for c in checks):
        raise LyceumError("this machine is not ready; the remedies stand above")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe, as `lyceum recipes` lists them.")],
    service: Service = None,
    data: Data = None,
    settings: Set = None,
    protocol: Protocol = None,
    workers: Workers = None,
    seed: Seed = None,
    publish: Annotated[bool, typer.Option(help="Put the version live when it passes.")] = True,
    json: Report = None,
) -> None:
    """Run a recipe: from data to a registered version and, with a platform up, a live service."""
    from flows.cli.session import absolute, session
    from flows.platform import begin_prefect

    pairs, source = parsed(settings), absolute(data)
    from flows.request import resolve, under
    from ray_jobs.data import sources

    pairs = under(protocol, recipe, pairs)
    resolved = resolve(recipe, service, source, pairs, workers, seed)
    sources.find(resolved.data, resolved.encoding)
    ready = begin_prefect(session().settings)
    from flows.pipeline import pipeline

    ready()
    with console.progress():
        report = pipeline(
            recipe=recipe,
            service=service,
            data=source,
            settings=pairs,
            workers=workers,
            seed=seed,
            publish=publish,
        )
    finish(report, json)


@app.command()
def families() -> None:
    """List the kinds of models there are."""
    from ray_jobs.families import families as names
    from ray_jobs.families import family

    kinds = [family(name) for name in names()]
    rows = [[k.name, k.title, ", ".join(k.specs), k.baseline().name] for k in kinds]
    console.table("families", ["family", "what it is", "specs", "baseline"], rows)


@app.command()
def recipes() -> None:
    """List the named experiments, and what each is for."""
    from ray_jobs.families import recipes as all_recipes

    rows = []
    for name, make in all_recipes().items():
        recipe = make()
        about = (make.__doc__ or "").strip().splitlines()[0]
        rows.append([name, recipe.service, recipe.spec.name, about])
    console.table("recipes", ["recipe", "service", "spec", "what it is"], rows)


@app.command()
def services(json: AsJson = False) -> None:
    """List the services: registered versions, the champion, and what is live."""
    from flows.cli.session import session

    at = session()
    from flows.services import listed

    found = listed(at.settings)
    if json:
        console.say(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    elif not found:
        console.say("no service yet; lyceum run RECIPE --data PATH makes one")
    else:
        _rows("services", found)


@app.command()
def promote(service: str, version: int) -> None:
    """Make a version the champion, and put it live where the platform is up."""
    from flows.cli.session import session

    at = session()
    from flows.services import promote as crown

    console.say(crown(at.settings, service, version))


@app.command()
def rollback(service: str) -> None:
    """Go back to the champion before this one."""
    from flows.cli.session import session

    at = session()
    from flows.services import rollback as restore

    console.say(restore(at.settings, service))


@app.command()
def schedule(
    recipe: str,
    cron: Annotated[str, typer.Option(help='When, such as "0 3 * * *".')],
    service: Service = None,
    data: Data = None,
    settings: Set = None,
) -> None:
    """Make a Prefect deployment that runs a recipe on a schedule."""
    from flows.cli.session import absolute, session

    pairs, source = parsed(settings), absolute(data)
    from flows.request import resolve

    resolve(recipe, service, source, pairs, None, None)
    at = session()
    from flows.schedule import schedule as deploy

    made = deploy(at.settings, recipe, cron, service=service, data=source, overrides=pairs)
    console.say(f"scheduled {made.name} at {cron!r} ({made.timezone}): {made.url}")


def finish(report: dict[str, Any], path: Path | None) -> None:
    """Write the report, show its figures, and fail when the gate stopped the version."""
    from flows.cli.summary import show

    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    show(report)
    if not report["gate"]["passed"]:
        raise LyceumError("the gate stopped this version; the reasons stand above")


def _rows(title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        texts = [["" if v is None else str(v) for v in row.values()] for row in rows]
        console.table(title, list(rows[0]), texts)
