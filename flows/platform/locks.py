"""One at a time: runs of one service, and changes to what is live, on this home.

A lock is held by the operating system for as long as its process lives, so a
killed holder leaves none; a file beside it says who holds it, for those who wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.platform.environment import run_folder
from ray_jobs.errors import UsageError
from ray_jobs.settings import Settings

POLL_S = 0.2


def lock(settings: Settings, service: str, part: str) -> Path:
    """The lock of a service on a home: `run` for whole runs, `live` for what answers."""
    return run_folder(settings.home) / "locks" / f"{service}.{part}"


@contextlib.contextmanager
def held(path: Path, what: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock for the block, waiting for whoever has it; `on_wait` is told once who that is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        waited = False
        while not taken(file.fileno()):
            if not waited:
                on_wait(f"waiting for {_holder(path)}")
                waited = True
            time.sleep(POLL_S)
        file.truncate(0)
        file.write(json.dumps({"what": what, "pid": os.getpid(), "since": time.time()}))
        file.flush()
        yield


@contextlib.contextmanager
def nobody_runs(settings: Settings, command: str) -> Iterator[None]:
    """Hold the run locks of all services for the block; raises UsageError where a run has one."""
    with contextlib.ExitStack() as stack:
        for path in sorted((run_folder(settings.home) / "locks").glob("*.run")):
            if not taken(stack.enter_context(path.open("a+")).fileno()):
                raise UsageError(
                    f"{_holder(path)} is under way; lyceum {command} again when it has ended"
                )
        yield


def taken(descriptor: int) -> bool:
    """Take the lock of an open file, if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        told = json.loads(path.read_text())
        since = time.strftime("%H:%M:%S", time.localtime(told["since"]))
        return f"{told['what']} (process {told['pid']}, since {since})"
    except (ValueError, KeyError, TypeError):
        return "another process"  # which has only just taken it
