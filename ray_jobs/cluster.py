"""The Ray that a run uses: the platform's, a named cluster's, or its own that ends with it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings, reachable, services_host
from ray_jobs.training.local import agent_on_any_port, shielded_from_ctrl_c

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
USUAL_HTTP_PORT = 8000
OBJECT_STORE = 256 * 2**20  # bytes: frames and weights travel through the store, not through Ray


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process has joined."""

    dashboard: str  # URL for jobs
    serve: str  # base URL of Serve
    lasting: bool  # outlives this run, so that services may be published on it
    started: Callable[[], object] = field(default=lambda: None, compare=False)  # once Serve is

    @property
    def services(self) -> str:
        """Base URL of Serve, which answers."""
        self.started()
        return self.serve


@contextlib.contextmanager
def joined(settings: Settings, *, folder: str = "", port: int = 0) -> Iterator[Cluster]:
    """Join the Ray of `RAY_ADDRESS`, or start one here that ends with the block.

    A Ray of one's own needs a folder, on a short path since sockets lie below
    it, and a free port for its services; a Ray that lasts has both already. Serve
    starts aside on one's own, where nobody else can have it start otherwise.
    """
    import ray

    from ray_jobs.serving import deploy

    lasting = bool(settings.ray_address)
    assert lasting or (folder and port)
    try:
        dashboard = _init(settings, folder)
        here = settings if lasting else replace(settings, http_port=port)
        with ThreadPoolExecutor(1) as aside:
            started = aside.submit(deploy.start, services_host(here), _http_port(here))
            if lasting:
                started.result()
            yield Cluster(dashboard, services_url(here), lasting, started.result)
    finally:
        ray.shutdown()


def services_url(settings: Settings) -> str:
    """Where services answer on a Ray that lasts, each below its name."""
    return f"http://{reachable(services_host(settings))}:{_http_port(settings)}"


def _http_port(settings: Settings) -> int:
    return settings.http_port or USUAL_HTTP_PORT


def _init(settings: Settings, folder: str) -> str:
    """Join or start Ray; returns the URL of its dashboard."""
    import ray

    here: dict[str, Any] = {
        "address": "local",
        "_node_ip_address": LOOPBACK,  # or the jobs of this Ray look for it elsewhere
        "num_cpus": settings.cpus or os.cpu_count(),
        "include_dashboard": True,
        "dashboard_host": LOOPBACK,
        "object_store_memory": OBJECT_STORE,
        "_temp_dir": folder,
    }
    there = {"address": settings.ray_address}
    chosen = there if settings.ray_address else here
    try:
        with agent_on_any_port(), shielded_from_ctrl_c(), _own_sigterm():
            context = ray.init(**chosen, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise PlatformError(
            f"no Ray answers at {settings.ray_address or 'this machine'}: {error}"
        ) from error
    return f"http://{context.dashboard_url}"


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's SIGTERM handler: Ray's prints a stack and aborts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
