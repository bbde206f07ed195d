"""A platform for tests: one that is only written down, and one of small real servers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from flows.platform import lifecycle, ports, record, starting
from flows.platform.components import Component
from flows.platform.environment import mlflow_database, prepare
from flows.platform.ports import InnerPorts, Ports
from flows.platform.processes import MARK, Process, marked, platform_mark, run_mark, stop
from flows.platform.record import COMPONENTS, PORTS_OF, Platform
from ray_jobs.settings import Settings

NOWHERE = Ports(http=1, mlflow=2, prefect=3, ray=4, dashboard=5, metrics=6)


@contextmanager
def same_environment() -> Iterator[None]:
    """Give back this process's environment as it was."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def up_here(
    settings: Settings, *, dead: tuple[str, ...] = (), http_port: int = NOWHERE.http
) -> Platform:
    """Write down a platform whose processes are all this one, so that it counts as up.

    For MLflow's server stands its database.
    """
    prepare(settings.home)
    here = {name: Process.of(name, os.getpid()) for name in COMPONENTS}
    for name in dead:
        here[name] = replace(here[name], started_s=here[name].started_s - 60)
    chosen = replace(NOWHERE, http=http_port)
    platform = record.describe(settings, chosen, str(settings.home / "ray"), tuple(here.values()))
    platform = replace(platform, mlflow_tracking_uri=mlflow_database(settings.home))
    record.write(settings.home, platform)
    return platform


@contextmanager
def orphan(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A process that a run of this home left behind when it was killed."""
    owner = Process.of("run", os.getpid())
    mark = run_mark(settings.home, replace(owner, started_s=owner.started_s - 60))
    command = [sys.executable, "-IS", "-c", "import signal; signal.pause()"]
    with subprocess.Popen(command, env={MARK: mark}) as child:
        try:
            yield child
        finally:
            child.kill()


# Appends its name when it is asked to end, so that the order of ends can be read.
SERVER = """
import os, signal, socket, sys
name, log, *ports = sys.argv[1:]
def end(*_):
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, name.encode() + b" ")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
servers = [socket.create_server(("127.0.0.1", int(port))) for port in ports]
while True:
    servers[0].accept()[0].close()
"""


class Toys:
    """A platform of small real servers, for `lifecycle.up` and `lifecycle.down`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.commands: dict[str, list[str]] = {}  # what runs instead, by component
        self._drawn: dict[tuple[str, str], int] = {}
        self.ends = settings.home.parent / "ends"  # who was asked to end, in order

    def components(self, settings: Settings, platform: Platform, _: InnerPorts) -> list[Component]:
        return [self._server(settings, platform, name) for name in COMPONENTS]

    def serve_starter(self, settings: Settings, _: Platform) -> Component:
        quick = [sys.executable, "-IS", "-c", "pass"]
        command = self.commands.get("serve", quick)
        return Component("serve", command, _marked(settings, "ray"), lambda: True, "", "", False)

    def answering(self, platform: Platform) -> set[str]:
        """Which servers take connections."""
        numbers = {name: self.port(platform, name) for name in COMPONENTS}
        return {name for name in COMPONENTS if not ports.free("127.0.0.1", numbers[name])}

    def port(self, platform: Platform, name: str) -> int:
        """Where a toy listens; one without a port of its own, somewhere, to tell it is ready."""
        if not PORTS_OF[name]:
            others = {*vars(platform.ports).values(), *self._drawn.values()}
            drawn = ports.any_free("127.0.0.1", others)
            return self._drawn.setdefault((name, platform.ray_address), drawn)
        return int(getattr(platform.ports, name))

    def pids(self) -> dict[str, int]:
        """Each marked process of the platform that lives, by component."""
        return {p.environ()[MARK].rpartition(":")[2]: p.pid for p in ours(self.settings)}

    def kill(self, name: str) -> None:
        process = psutil.Process(self.pids()[name])
        process.kill()
        process.wait()

    def _server(self, settings: Settings, platform: Platform, name: str) -> Component:
        number = self.port(platform, name)
        more = [getattr(platform.ports, n) for n in PORTS_OF[name] if n != name]
        words = map(str, (name, self.ends, number, *more))
        usual = [sys.executable, "-IS", "-c", SERVER, *words]
        return Component(
            name=name,
            command=self.commands.get(name, usual),
            environment=_marked(settings, name),
            ready=lambda: not ports.free("127.0.0.1", number),
            where=str(number),
            after={"worker": "prefect", "reconciler": "ray"}.get(name, ""),
        )


def ours(settings: Settings) -> list[psutil.Process]:
    """The platform's processes, by the whole of their mark: whoever mistakes it kills no other."""
    everything = platform_mark(settings.home)
    return marked(settings.home, lambda mark: mark.startswith(everything))


@contextmanager
def toys(settings: Settings, patch: pytest.MonkeyPatch) -> Iterator[Toys]:
    """Small servers in place of Prefect, MLflow and Ray, on any free ports, gone at the end."""
    stand_in = Toys(settings)
    patch.setattr(lifecycle, "components", stand_in.components)
    patch.setattr(lifecycle, "serve_starter", stand_in.serve_starter)
    patch.setattr(ports, "USUAL", {name: (0, who) for name, (_, who) in ports.USUAL.items()})
    patch.setattr(starting, "POLL_S", 0.01)
    patch.setattr(lifecycle, "ray_folder", lambda: tempfile.mkdtemp(dir=settings.home.parent))
    try:
        yield stand_in
    finally:
        stop(ours(settings), 0)


def _marked(settings: Settings, name: str) -> dict[str, str]:
    return {MARK: platform_mark(settings.home, name)}
