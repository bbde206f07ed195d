"""Runs without a platform: a Ray of their own that never outlives them.

Each run writes down its pid, its start and Ray's temporary folder; whatever a
killed run left behind is found by its mark and removed by the next start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flows.platform import ports, record
from flows.platform.components import ray_environment
from flows.platform.environment import prepare, ray_folder, run_folder
from flows.platform.processes import MARK, Process, marked, owner_of, platform_mark, run_mark, stop
from ray_jobs import store
from ray_jobs.errors import StoreError
from ray_jobs.settings import Settings

GRACE_S = 3.0


@dataclass(frozen=True)
class Embedded:
    """What a local Ray of this process needs, before Ray is imported."""

    environment: dict[str, str]
    ray_temp: str  # for ray.init(address="local", _temp_dir=...)
    http_port: int  # free now; where Serve may listen


@contextlib.contextmanager
def embedded(settings: Settings) -> Iterator[Embedded]:
    """Lend this process a marked Ray environment, and clean up behind it.

    The environment is not applied here; the caller updates `os.environ`, shuts
    Ray down inside the block, and finds nothing left after it.
    """
    prepare(settings.home)
    owner = Process.of("run", os.getpid())
    mark = run_mark(settings.home, owner, "ray")
    temp = ray_folder()
    path = run_folder(settings.home) / f"run-{owner.pid}-{Path(temp).name}.json"
    store.write_json(str(path), {"owner": asdict(owner), "ray_temp": temp})
    inner = ports.inner()
    variables = {MARK: mark} | ray_environment(Path(temp), inner)
    try:
        yield Embedded(variables, temp, ports.any_free(settings.host, vars(inner).values()))
    finally:
        stop(marked(settings.home, lambda found: found == mark), GRACE_S)
        shutil.rmtree(temp, ignore_errors=True)
        path.unlink(missing_ok=True)


def reap(settings: Settings) -> int:
    """Stop what dead runs, and a dead platform, of this home left; returns how many processes.

    Live runs, a live platform, one being started, and everything unmarked stay.
    """
    if not run_folder(settings.home).exists():
        return 0
    orphans = [*_orphans_of_runs(settings.home), *_orphans_of_platform(settings)]
    stop(orphans, GRACE_S)
    _remove_folders_of_dead_runs(settings.home)
    return len(orphans)


def _orphans_of_runs(home: Path) -> list[psutil.Process]:
    def dead(mark: str) -> bool:
        owner = owner_of(mark, home)
        return owner is not None and not owner.alive

    return marked(home, dead)


def _orphans_of_platform(settings: Settings) -> list[psutil.Process]:
    home = settings.home
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(record.try_locked(home)):
            return []  # somebody is starting or stopping it just now
        platform = record.read(home)
        if platform is not None and not platform.alive("ray"):
            shutil.rmtree(platform.ray_temp, ignore_errors=True)
        live = [n for n in record.COMPONENTS if platform is not None and platform.alive(n)]
        marks = {platform_mark(home, n) for n in live}
        everything = platform_mark(home)
        return marked(home, lambda mark: mark.startswith(everything) and mark not in marks)


def _remove_folders_of_dead_runs(home: Path) -> None:
    for path in run_folder(home).glob("run-*.json"):
        try:
            values = store.read_json(str(path))
            owner, folder = Process(**values["owner"]), str(values["ray_temp"])
        except (StoreError, KeyError, TypeError):
            continue  # gone meanwhile, or of another version, which cleans up after itself
        if not owner.alive:
            shutil.rmtree(folder, ignore_errors=True)
            path.unlink(missing_ok=True)
