"""Standing aside: a replica that loads lets those that answer go first."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = Path("/proc/self/task")
PATIENCE_S = 10.0  # after which it takes its turn like everybody: a busy machine has no pauses


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Give this process's threads only what others leave, for the block or for some seconds.

    On Linux, where a process may do so and take it back (SCHED_IDLE): that needs CAP_SYS_NICE, or
    a limit of niceness (RLIMIT_NICE) that users seldom have. Elsewhere nothing changes.
    """
    if not _may_come_back():
        yield
        return
    _scheduled(os.SCHED_IDLE)
    over = threading.Timer(PATIENCE_S, _scheduled, [os.SCHED_OTHER])
    over.daemon = True
    over.start()
    try:
        yield
    finally:
        over.cancel()
        _scheduled(os.SCHED_OTHER)


def _may_come_back() -> bool:
    """Tried by a thread that has nothing else to do, since only its own policy changes."""
    if not hasattr(os, "SCHED_IDLE"):
        return False
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_there_and_back).result()


def _there_and_back() -> bool:
    try:
        for policy in (os.SCHED_IDLE, os.SCHED_OTHER):
            os.sched_setscheduler(0, policy, os.sched_param(0))
    except PermissionError:
        return False
    return True


def _scheduled(policy: int) -> None:
    for thread in THREADS.iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))
