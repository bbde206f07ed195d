"""`lyceum feedback`: what became of a service's predictions, and a log of it to learn from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import orjson
import typer

from flows.cli import console
from flows.cli.options import AsJson


def feedback(
    service: Annotated[str, typer.Argument(help="A service, as `lyceum services` lists them.")],
    json: AsJson = False,
) -> None:
    """Tell how each version's predictions have fared, and write what happened as a log."""
    from ray_jobs import settings as installation
    from ray_jobs.serving import outcomes

    at = installation.read().store_uri
    told = outcomes.gathered(at, service)
    log, fared = outcomes.as_log(at, service, told), outcomes.fared(told)
    if json:
        found = {
            "service": service,
            "outcomes": len(told.rows),
            "again": told.again,
            "otherwise": told.otherwise,
            "versions": [asdict(one) for one in fared],
            "log": log,
        }
        console.say(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    rows = outcomes.table(fared)
    console.table("feedback", list(rows[0]), [list(row.values()) for row in rows])
    console.say(
        f"{len(told.rows)} outcomes, {told.again} told again, {told.otherwise} told otherwise later"
    )
    console.say(f"log: {log}")
