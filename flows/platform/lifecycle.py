"""Up and down: all of a platform at once, again when part of it died, and nothing left after.

What is planned is written down before it starts, so that even a start that was
killed half-way is found and cleaned up by the next.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flows.platform import ports, record
from flows.platform.components import components, serve_starter
from flows.platform.environment import haproxy_available, prepare, ray_folder
from flows.platform.openness import refuse_open
from flows.platform.processes import marked, platform_mark, stop
from flows.platform.record import Platform
from flows.platform.starting import start_all
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings, variable

# Flow runs get this long to stop their jobs and tell the server how they ended.
WORKER_GRACE_S = 8.0
# Ray would drain for half a minute; what a killed job needs is on the store already.
GRACE_S = 3.5

Progress = Callable[[str], None]


def silent(_line: str) -> None:
    """Progress for nobody."""


def up(settings: Settings, on_progress: Progress = silent) -> Platform:
    """Start the platform of this home, or what is missing of it, and return it when it answers.

    Raises PlatformError when a port named by a setting is taken, or a server
    dies or does not answer; what this call started is stopped then.
    """
    prepare(settings.home)
    with record.locked(settings.home):
        before = record.read(settings.home)
        if before is not None and before.whole:
            on_progress("already up")
            return before
        _refuse_foreign(settings, before)
        live = [n for n in record.COMPONENTS if before is not None and before.alive(n)]
        refuse_open(settings, served="ray" in live)
        if live:
            on_progress(f"half up: keeping {', '.join(live)}, starting the rest")
        _stop_components(settings.home, [n for n in record.COMPONENTS if n not in live])
        if before is not None and "ray" not in live:
            shutil.rmtree(before.ray_temp, ignore_errors=True)
        platform = _plan(settings, before, live)
        try:
            return _start(settings, platform, live, on_progress)
        except PlatformError:
            if not _lost_a_port(settings, platform, live):
                raise
            on_progress("another process took a port meanwhile; starting again on others")
            return _start(settings, _plan(settings, platform, live), live, on_progress)


def down(settings: Settings, on_progress: Progress = silent) -> None:
    """Stop the platform of this home and whatever it left, whichever part still lives."""
    if not settings.home.exists():
        return
    with record.locked(settings.home):
        before = record.read(settings.home)
        if before is not None:
            on_progress("stopping")
        _stop_components(settings.home, ["worker"], WORKER_GRACE_S)
        _stop_components(settings.home, list(record.COMPONENTS))
        if before is not None:
            shutil.rmtree(before.ray_temp, ignore_errors=True)
        record.forget(settings.home)


def _start(
    settings: Settings, platform: Platform, live: list[str], on_progress: Progress
) -> Platform:
    record.write(settings.home, platform)
    inner = ports.inner(vars(platform.ports).values())
    missing = [c for c in components(settings, platform, inner) if c.name not in live]
    if "ray" not in live:
        missing.append(serve_starter(settings, platform))
        if not haproxy_available():
            on_progress("no HAProxy on this system: services answer, but slower")
    try:
        started = start_all(settings.home, missing, on_progress)
    except BaseException:
        _stop_components(settings.home, [c.name for c in missing])
        if "ray" not in live:
            shutil.rmtree(platform.ray_temp, ignore_errors=True)
        raise
    platform = replace(platform, processes=(*platform.processes, *started))
    record.write(settings.home, platform)
    return platform


def _lost_a_port(settings: Settings, platform: Platform, live: list[str]) -> bool:
    """Whether a port that was free when it was chosen is now somebody else's."""
    names = [n for c in record.COMPONENTS if c not in live for n in record.PORTS_OF[c]]
    return not all(
        ports.free(ports.listens_on(settings, n), getattr(platform.ports, n)) for n in names
    )


def _plan(settings: Settings, before: Platform | None, live: list[str]) -> Platform:
    """The platform to be: live servers keep their ports, Ray its folder if it lives."""
    kept: dict[str, int] = {}
    if before is not None:
        names = [name for component in live for name in record.PORTS_OF[component]]
        kept = {name: getattr(before.ports, name) for name in names}
    chosen = ports.choose(settings, kept, before.ports if before else None)
    reused = before.ray_temp if before is not None and "ray" in live else ""
    temp = reused or ray_folder()
    processes = before.processes if before is not None else ()
    kept_processes = tuple(p for p in processes if p.name in live)
    return record.describe(settings, chosen, temp, kept_processes)


def _stop_components(home: Path, names: list[str], grace_s: float = GRACE_S) -> None:
    marks = {platform_mark(home, name) for name in names}
    stop(marked(home, lambda mark: mark in marks), grace_s)
    # What started while its parent was being stopped.
    stop(marked(home, lambda mark: mark in marks), 0)


def _refuse_foreign(settings: Settings, before: Platform | None) -> None:
    """Servers named elsewhere are not this platform's to start."""
    own = set(before.environment().values()) if before is not None else set()
    for name in ("prefect_api_url", "mlflow_tracking_uri", "ray_address"):
        value = getattr(settings, name)
        local = name == "mlflow_tracking_uri" and value.startswith("sqlite:")
        if value and not local and value not in own:
            raise PlatformError(
                f"{variable(name)} is {value}, but `lyceum up` starts servers of its own; "
                f"unset {variable(name)} to have them on this machine"
            )
