"""`lyceum keys`: who may call a service; a key is shown once, when it is made."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from flows.cli import console
from flows.cli.options import AsJson
from ray_jobs.errors import UsageError

if TYPE_CHECKING:
    from ray_jobs.serving.keys import ApiKey
    from ray_jobs.settings import Settings

keys = typer.Typer(
    name="keys",
    help="Say who may call a service, how often, and until when.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
DAYS = {"d": 1.0, "h": 1 / 24, "m": 1 / 1440}
Services = Annotated[list[str], typer.Argument(help="Services that it opens; '*' for all.")]


@keys.command()
def create(
    services: Services,
    name: Annotated[str, typer.Option(help="Whose it is, for people.")],
    action: Annotated[
        list[str] | None,
        typer.Option(help="predict, feedback or read; may stand several times; default: all."),
    ] = None,
    expires: Annotated[str, typer.Option(help="In how long it ends: 90d, 12h; empty: never.")] = "",
    per_second: Annotated[
        float, typer.Option(help="Requests in the long run, on all replicas; 0: no limit.")
    ] = 0.0,
    burst: Annotated[float, typer.Option(help="Requests at once; 0: those of a second.")] = 0.0,
    json: AsJson = False,
) -> None:
    """Make a key, and show it this once; it works when this command ends."""
    from flows.audit import record
    from ray_jobs.serving import keys as shelf

    at = _installation()
    with record(at, "keys.create", " ".join(services)) as details:
        made, text = shelf.create(
            at.store_uri,
            name,
            services,
            actions=tuple(action or shelf.ACTIONS),
            days=_days(expires),
            per_second=per_second,
            burst=burst,
        )
        details["id"] = made.id
    time.sleep(shelf.KNOWN_S)  # until every replica has looked
    if json:
        console.say(orjson.dumps({"key": text, **_facts(made, revoked=False)}).decode())
        return
    console.say(text)
    console.say("Keep it now, it is not shown again: authorization: Bearer KEY")


@keys.command("list")
def list_(json: AsJson = False) -> None:
    """List the keys that were made, without what makes them work."""
    from ray_jobs.serving import keys as shelf

    rows = [_facts(key, revoked=gone) for key, gone in shelf.listed(_installation().store_uri)]
    if json:
        console.say(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
    elif not rows:
        console.say("no key yet; lyceum keys create SERVICE --name NAME makes one")
    else:
        console.table("keys", list(rows[0]), [[str(v) for v in row.values()] for row in rows])


@keys.command()
def revoke(id_: Annotated[str, typer.Argument(metavar="ID", help="As the list has it.")]) -> None:
    """End a key for good; no replica takes it any more when this command ends."""
    from flows.audit import record
    from ray_jobs.serving import keys as shelf

    at, id_ = _installation(), shelf.id_of(id_)
    with record(at, "keys.revoke", id_[: shelf.SHOWN]):
        gone = shelf.revoke(at.store_uri, id_)
    time.sleep(shelf.KNOWN_S)
    console.say(f"key {gone.id} of {gone.name} is revoked")


def _facts(key: ApiKey, *, revoked: bool) -> dict[str, Any]:
    ended = "revoked" if revoked else "expired" if key.expired(time.time()) else "good"
    return {
        "id": key.id,
        "name": key.name,
        "state": ended,
        "services": " ".join(key.services),
        "actions": " ".join(key.actions),
        "created": _moment(key.created_s),
        "expires": "never" if key.expires_s is None else _moment(key.expires_s),
        "per_second": f"{key.per_second:g}" if key.per_second else "no limit",
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _days(text: str) -> float:
    """Days out of `90d`, `12h` or `30m`; 0 for nothing; raises UsageError for something else."""
    if not text:
        return 0.0
    try:
        days = float(text[:-1]) * DAYS[text[-1]]
    except (ValueError, KeyError) as error:
        raise UsageError(f"--expires {text}: expected a time such as 90d, 12h or 30m") from error
    if not 0 < days < 36_500:
        raise UsageError(f"--expires {text}: expected more than nothing, and less than a century")
    return days


def _installation() -> Settings:
    from ray_jobs import settings as installation

    return installation.read()
