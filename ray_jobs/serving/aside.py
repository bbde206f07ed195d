"""Standing aside: a replica that loads lets those that answer go first."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

THREADS = Path("/proc/self/task")
PATIENCE_S = 10.0  # after which it takes its turn like everybody: a busy machine has no pauses


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Give this process's threads only what others leave, for the block or for some seconds.

    On Linux, where a process may do so and take it back (SCHED_IDLE); elsewhere nothing changes.
    """
    if not hasattr(os, "SCHED_IDLE"):
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


def _scheduled(policy: int) -> None:
    for thread in THREADS.iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))
