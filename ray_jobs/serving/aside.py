"""Standing aside: a replica that loads lets those that answer go first."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

THREADS = Path("/proc/self/task")
PATIENCE_S = 10.0  # after which it takes its turn like everybody: a busy machine has no pauses
NICEST = 19  # of whoever may not take that back; Ray's own workers are at 15

T = TypeVar("T")


def aside(work: Callable[[], T]) -> T:
    """What comes of work that gets only what others leave, in a thread of its own.

    On Linux, with SCHED_IDLE for some seconds, where the process may come back from it
    (CAP_SYS_NICE, or a limit of niceness); else as the nicest of all, and so do for good the
    threads that it starts. Elsewhere nothing changes.
    """
    over = threading.Event()

    def standing_back() -> T:
        _stand_back(over)
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix="aside") as pool:
        try:
            return pool.submit(standing_back).result()
        finally:
            over.set()
            _all_come_back()


def _stand_back(over: threading.Event) -> None:
    """This thread, and those that it starts from now on."""
    if not hasattr(os, "SCHED_IDLE"):
        return
    if not may_come_back():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICEST)
        return

    def come_back() -> None:
        if not over.wait(PATIENCE_S):
            _all_come_back()

    threading.Thread(target=come_back, name="aside-over", daemon=True).start()
    _scheduled(0, os.SCHED_IDLE)


def _all_come_back() -> None:
    for thread in THREADS.iterdir() if hasattr(os, "SCHED_IDLE") else ():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            if os.sched_getscheduler(int(thread.name)) == os.SCHED_IDLE:
                _scheduled(int(thread.name), os.SCHED_OTHER)


def may_come_back() -> bool:
    """Tried by a thread that has nothing else to do, since only its own policy changes."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_there_and_back).result()


def _there_and_back() -> bool:
    try:
        for policy in (os.SCHED_IDLE, os.SCHED_OTHER):
            _scheduled(0, policy)
    except PermissionError:
        return False
    return True


def _scheduled(thread: int, policy: int) -> None:
    os.sched_setscheduler(thread, policy, os.sched_param(0))
