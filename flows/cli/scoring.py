"""`lyceum score`: predictions for a whole log, into a folder of Parquet files."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from flows.cli import console
from flows.cli.options import Report, Set, parsed
from ray_jobs.errors import UsageError


def score(
    service: Annotated[str, typer.Argument(help="A service, as `lyceum services` lists them.")],
    data: Annotated[str, typer.Option(help="A file, a folder, a glob or an fsspec URL.")],
    out: Annotated[str, typer.Option(help="Where it goes: a folder, new or empty, or a URL.")],
    settings: Set = None,
    version: Annotated[int | None, typer.Option(help="Default: the champion.")] = None,
    json: Report = None,
) -> None:
    """Write what a service's champion says of a whole log, as Parquet."""
    from flows.cli.session import absolute, session
    from flows.platform import begin_prefect

    pairs, source, place = parsed(settings), absolute(data), absolute(out)
    if source is None or place is None:
        raise UsageError("--data and --out must name a place")
    here = session().settings
    ready = begin_prefect(here)
    from flows.score import asked, chosen
    from flows.score import score as write
    from ray_jobs.data import sources

    resolved = asked(chosen(here, service, version), source, pairs)
    sources.find(resolved.data, resolved.encoding)
    ready()
    with console.progress():
        report = write(service=service, data=source, out=place, settings=pairs, version=version)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    for name, rows in report["rows"].items():
        console.say(f"{report['out']}/{name}: {rows:,} rows of Parquet")
    console.say(f"by {report['service']} version {report['version']}, lineage {report['lineage']}")
