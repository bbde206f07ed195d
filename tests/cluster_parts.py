"""Several Ray nodes on this machine, each with folders of its own and nothing in common but S3."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from tests.s3_parts import free_ports

RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block")
# What Ray makes of this machine's loopback address, too.
HOST: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
READY_S = 180.0
OBJECT_STORE = str(128 * 2**20)  # bytes


@dataclass
class Node:
    """One node: its processes, and the folder that only they use."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def processes(self) -> list[psutil.Process]:
        """Every process of the node, workers too: those with its mark in their environment."""
        mark, found = str(self.home), []
        for process in psutil.process_iter():
            try:
                if process.environ().get("LYCEUM_HOME") == mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def named(self, name: str) -> list[psutil.Process]:
        """Those whose command has a word in it, such as `raylet`."""
        return [p for p in self.processes if any(name in word for word in _command(p))]

    @property
    def raylet(self) -> psutil.Process:
        (raylet,) = (p for p in self.processes if p.name() == "raylet")
        return raylet

    def pause(self) -> None:
        """Its part of Ray says nothing more; what it started lives."""
        self.raylet.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.raylet.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As if its power went: everything at once, and no goodbye."""
        for process in self.processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()


@dataclass
class Nodes:
    """A cluster: a head and others, that come and go."""

    folder: Path
    environment: dict[str, str]
    port: int
    dashboard_port: int
    nodes: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def dashboard(self) -> str:
        return f"http://{HOST}:{self.dashboard_port}"

    @property
    def joining(self) -> dict[str, str]:
        """What the environment of a driver must say."""
        names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
        return {"RAY_ADDRESS": self.address, **{n: self.environment[n] for n in names}}

    def add(self, *, cpus: int = 1) -> Node:
        """Start one more node; the first is the head."""
        name = f"n{len(list(self.folder.glob('n*')))}"
        folder = self.folder / name
        folder.mkdir()
        agent, grpc, runtime, metrics, client = map(str, free_ports(5))
        options = {
            "--node-ip-address": HOST,
            "--num-cpus": str(cpus),
            "--object-store-memory": OBJECT_STORE,
            "--dashboard-agent-listen-port": agent,
            "--dashboard-agent-grpc-port": grpc,
            "--runtime-env-agent-port": runtime,
            "--metrics-export-port": metrics,
            "--min-worker-port": "0",
            "--max-worker-port": "0",
            "--temp-dir": str(folder / "ray"),
        }
        if self.nodes:
            options |= {"--address": self.address}
        else:
            options |= {
                "--port": str(self.port),
                "--dashboard-host": HOST,
                "--dashboard-port": str(self.dashboard_port),
                "--ray-client-server-port": client,
                "--include-log-monitor": "false",
            }
        command = [*RAY, *([] if self.nodes else ["--head"])]
        command += [word for option in options.items() for word in option]
        own = {"LYCEUM_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        for path in own.values():
            Path(path).mkdir()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self.environment | own, stdout=log, stderr=log, cwd=folder,
                start_new_session=True,
            )  # fmt: skip
        node = Node(name, folder, process)
        self.nodes.append(node)
        return node

    def join(self) -> None:
        """Connect this process, once every node that was added is there."""
        until = time.monotonic() + READY_S
        while not self._joined():
            assert time.monotonic() < until, self.log
            time.sleep(0.3)
        self.wait_for(len(self.nodes))

    def wait_for(self, count: int) -> None:
        """Until so many nodes are alive."""
        until = time.monotonic() + READY_S
        while len(alive()) != count:
            assert time.monotonic() < until, self.log
            time.sleep(0.2)

    def stop(self) -> None:
        ray.shutdown()
        for node in self.nodes:
            for process in node.named("raylet"):
                process.send_signal(signal.SIGCONT)
            node.kill()

    @property
    def log(self) -> str:
        return "\n".join((node.folder / "log").read_text()[-2000:] for node in self.nodes)

    def _joined(self) -> bool:
        try:
            ray.init(address=self.address, log_to_driver=False, _node_ip_address=HOST)
        except (ConnectionError, RuntimeError):
            return False
        return True


@contextmanager
def several(count: int, **environment: str) -> Iterator[Nodes]:
    """So many nodes for as long as the block runs, and this process a driver on them."""
    port, dashboard = free_ports(2)
    with ExitStack() as stack:
        # A short path: sockets lie below it, and their names may not be long.
        folder = tempfile.TemporaryDirectory(prefix="c", dir="/tmp", ignore_cleanup_errors=True)
        place = Path(stack.enter_context(folder))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        token = place / "token"
        token.write_text(secrets.token_hex(32))
        quiet = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "SPT_NOENV": "1",  # titled processes otherwise overwrite their environment
        }
        for name, value in quiet.items():
            patch.setenv(name, value)
        # Ray has read its settings when it was imported.
        stack.callback(_read_again)
        _read_again()
        nodes = Nodes(place, {**os.environ, **quiet, **environment}, port, dashboard)
        stack.callback(nodes.stop)
        for _ in range(count):
            nodes.add()
            nodes.join() if not ray.is_initialized() else None
        nodes.wait_for(count)
        yield nodes


def alive() -> list[dict[str, Any]]:
    every: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in every if node["Alive"]]


def _read_again() -> None:
    """Have Ray's own part of this process read its environment."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
