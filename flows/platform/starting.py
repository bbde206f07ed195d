"""Starting servers in parallel, each asked until it answers, and told apart when one dies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flows.platform.components import Component
from flows.platform.environment import logs_folder
from flows.platform.processes import Process
from ray_jobs.errors import PlatformError

START_LIMIT_S = 120.0
POLL_S = 0.1
LOG_TAIL_LINES = 15

Progress = Callable[[str], None]


@dataclass
class _Started:
    """A component on its way: `ready_s` is set once it answered."""

    component: Component
    process: subprocess.Popen[bytes]
    since: float = field(default_factory=time.monotonic)
    ready_s: float | None = None


def start_all(home: Path, missing: list[Component], on_progress: Progress) -> list[Process]:
    """Start components as soon as what they need is ready; return the lasting ones.

    Raises PlatformError when one ends or does not answer in time; those that
    were started by then are left to the caller.
    """
    started: dict[str, _Started] = {}
    try:
        _until_ready(home, missing, started, on_progress)
        return [Process.of(n, s.process.pid) for n, s in started.items() if s.component.lasting]
    finally:
        for each in started.values():
            # Servers outlive this command; Popen would warn about that.
            each.process.returncode = each.process.poll() or 0


def _until_ready(
    home: Path, missing: list[Component], started: dict[str, _Started], on_progress: Progress
) -> None:
    waiting, deadline = list(missing), time.monotonic() + START_LIMIT_S
    while waiting or any(s.ready_s is None for s in started.values()):
        for component in [c for c in waiting if _may_start(c, waiting, started)]:
            waiting.remove(component)
            started[component.name] = _Started(component, _popen(home, component))
        for each in started.values():
            if each.ready_s is None:
                _check(home, each, on_progress)
        if time.monotonic() > deadline:
            late = [n for n, s in started.items() if s.ready_s is None]
            raise PlatformError(
                f"{', '.join(late)} did not answer within {START_LIMIT_S:.0f} s; "
                f"see {logs_folder(home)}"
            )
        time.sleep(POLL_S)
    for each in started.values():
        # Another server on the same port may have answered for one that could not bind.
        _refuse_ended(home, each)


def _may_start(
    component: Component, waiting: list[Component], started: dict[str, _Started]
) -> bool:
    if component.after in started:
        return started[component.after].ready_s is not None
    return component.after not in [c.name for c in waiting]


def _check(home: Path, each: _Started, on_progress: Progress) -> None:
    _refuse_ended(home, each)
    component = each.component
    if (component.lasting or each.process.poll() == 0) and component.ready():
        each.ready_s = time.monotonic() - each.since
        on_progress(f"{component.name} ready at {component.where} ({each.ready_s:.1f} s)")


def _refuse_ended(home: Path, each: _Started) -> None:
    name, code = each.component.name, each.process.poll()
    if code is None or (code == 0 and not each.component.lasting):
        return
    path = _log(home, name)
    tail = path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    lines = "\n".join(f"  {line}" for line in tail)
    raise PlatformError(
        f"{name} ended with exit status {code} while starting; the end of {path}:\n{lines}"
    )


def _popen(home: Path, component: Component) -> subprocess.Popen[bytes]:
    path = _log(home, component.name)
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    with path.open("wb") as log:
        return subprocess.Popen(
            component.command,
            env=component.environment,
            cwd=path.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C is for the command, not for servers
        )


def _log(home: Path, name: str) -> Path:
    return logs_folder(home) / f"{name}.log"
