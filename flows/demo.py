"""The main job from nothing: a school's log, a trained model, a live endpoint, an answer."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import Any

import httpx
import orjson

from flows.cli import console
from flows.cli.app import finish
from flows.cli.session import Session, session
from flows.platform import down, up
from ray_jobs.errors import ServiceError
from ray_jobs.families import family as named
from ray_jobs.serving import keys
from ray_jobs.settings import Settings

KEY_DAYS = 1.0  # that the demo's key holds


def demonstrate(
    at: Session, family: str, *, data: str | None, keep: bool, report: Path | None
) -> None:
    """Run a family's demo on the platform, starting it if need be, and leave no process behind.

    With `keep`, or where the platform was up before, it stays up.
    """
    kind = named(family)
    before = set(os.environ)
    try:
        if at.platform is None:
            console.say("starting the platform")
            up(at.settings, console.say)
        folder = at.settings.home / "samples" / family
        source = data or kind.sample(folder, 0)
        told = _run(family, source, truth="" if data else str(folder), path=report)
        _call(at.settings, told)
        _farewell(at.settings, keep=keep or at.platform is not None)
    finally:
        if at.platform is None and not keep:
            down(at.settings, console.say)
            for name in set(os.environ) - before:
                del os.environ[name]


def _run(family: str, data: str, *, truth: str, path: Path | None) -> dict[str, Any]:
    session()  # the platform's addresses, before Prefect reads them
    from flows.pipeline import pipeline

    try:
        with console.progress():
            report = pipeline(recipe=f"{family}-demo", data=data, truth=truth)
    finally:
        # Once its server is gone, Prefect would keep an ending process waiting for it.
        _deliver_logs()
    finish(report, path)
    return report


def _deliver_logs() -> None:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)


def _call(settings: Settings, report: dict[str, Any]) -> None:
    """Ask the new service one golden question over HTTP, as a client would, with a key of ours."""
    url = f"{report['endpoint']}/v1/predict"
    body = report["request"]
    _, key = keys.create(settings.store_uri, "demo", [report["service"]], days=KEY_DAYS)
    time.sleep(keys.KNOWN_S)
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)
    text = shlex.quote(orjson.dumps(body).decode())
    console.say(
        f"curl -s {url} -H 'authorization: Bearer {key}' "
        f"-H 'content-type: application/json' -d {text}"
    )
    console.say(f"HTTP {answer.status_code} {answer.text}")
    if answer.status_code != 200 or answer.json()["version"] != report["version"]:
        raise ServiceError(f"{url} did not answer as version {report['version']}")


def _farewell(settings: Settings, *, keep: bool) -> None:
    if keep:
        console.say("The platform stays up: the links above work. Stop it with: lyceum down")
    else:
        console.say(f"Everything is kept in {settings.home}; lyceum up shows it and serves it.")
