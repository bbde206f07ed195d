"""What loads gives way to what answers, with privileges and without, and leaves no trace."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from ray_jobs.serving import aside as module
from ray_jobs.serving.aside import aside, may_come_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SCHED_IDLE is Linux's")
NOBODY = 65534
ALONE = """
import os, threading
from concurrent.futures import thread
from ray_jobs.serving.aside import aside, may_come_back
os.setuid({nobody})  # only now, since it may not read where Python lies
assert not may_come_back()
def nice(): return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
print(aside(nice), nice())
"""


def policy() -> int:
    return os.sched_getscheduler(threading.get_native_id())


def test_what_comes_of_it_comes_back_and_nobody_else_gave_way() -> None:
    if not may_come_back():
        pytest.skip("this user may not come back from SCHED_IDLE")
    begun: list[int] = []

    def work() -> int:
        thread = threading.Thread(target=lambda: begun.append(policy()))
        thread.start()
        thread.join()
        return policy()

    assert aside(work) == os.SCHED_IDLE
    assert begun == [os.SCHED_IDLE]
    assert policy() == os.SCHED_OTHER


def test_threads_that_it_started_take_their_turn_afterwards() -> None:
    if not may_come_back():
        pytest.skip("this user may not come back from SCHED_IDLE")
    over, found = threading.Event(), list[int]()

    def stays() -> None:
        over.wait(20)
        found.append(policy())

    thread = threading.Thread(target=stays)
    aside(thread.start)
    over.set()
    thread.join()
    assert found == [os.SCHED_OTHER]


def test_after_some_seconds_it_takes_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    if not may_come_back():
        pytest.skip("this user may not come back from SCHED_IDLE")
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)

    def work() -> bool:
        until = time.monotonic() + 20
        while policy() == os.SCHED_IDLE and time.monotonic() < until:
            time.sleep(0.01)
        return policy() == os.SCHED_OTHER

    assert aside(work)


def test_what_it_raises_is_raised() -> None:
    def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        aside(work)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without privileges")
def test_who_may_not_come_back_loads_all_the_same() -> None:
    lowly = [sys.executable, "-c", ALONE.format(nobody=NOBODY)]
    done = subprocess.run(lowly, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["19", "0"]
