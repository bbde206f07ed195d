"""Processes that are ours: known by pid and start, marked through their environment.

A mark is inherited by every descendant, so that haproxy, agents and workers
are found even after all their ancestors were killed. Nothing unmarked is ever
signalled, nor the calling process and its ancestors.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "LYCEUM_OWNER"
# Create times are read in clock ticks; two processes never share a pid this close.
SAME_START_S = 1.0


@dataclass(frozen=True)
class Process:
    """One process of this machine, for good: a pid alone is used again."""

    name: str
    pid: int
    started_s: float  # seconds after boot, so that a clock set anew changes nothing

    @classmethod
    def of(cls, name: str, pid: int) -> Process:
        return cls(name, pid, _started_s(psutil.Process(pid)))

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            if abs(_started_s(process) - self.started_s) > SAME_START_S:
                return False
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def platform_mark(home: Path, component: str = "") -> str:
    """The mark of the platform's processes; without a component, their common prefix."""
    return f"{_home_mark(home)}platform:{component}"


def run_mark(home: Path, owner: Process, part: str = "") -> str:
    """The mark of what a command starts; a part of it that ends earlier is named."""
    return f"{_home_mark(home)}{owner.pid}:{owner.started_s:.2f}:{part}"


def owner_of(mark: str, home: Path) -> Process | None:
    """The command behind a mark, or None for a mark of the platform."""
    pid, started_s, *_ = [*mark.removeprefix(_home_mark(home)).split(":"), ""]
    return Process("run", int(pid), float(started_s)) if pid.isdigit() else None


def marked(home: Path, chosen: Callable[[str], bool]) -> list[psutil.Process]:
    """Live processes of this user with a mark of this home that is chosen."""
    own = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        mark = "" if process.pid in own else _mark(process)
        if mark.startswith(_home_mark(home)) and chosen(mark):
            found.append(process)
    return found


def stop(processes: Iterable[psutil.Process], grace_s: float) -> None:
    """Ask processes to end, and end those that do not within the grace."""
    waiting = list(processes)
    for process in waiting:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(waiting, timeout=grace_s)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=5)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return  # it ended by itself, which is what was wanted


def _mark(process: psutil.Process) -> str:
    try:
        if process.uids().real != os.getuid():
            return ""
        return process.environ().get(MARK, "")
    except (psutil.Error, OSError):
        return ""  # gone meanwhile, or not ours to read


def _home_mark(home: Path) -> str:
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16] + ":"


def _started_s(process: psutil.Process) -> float:
    return float(process.create_time() - psutil.boot_time())
