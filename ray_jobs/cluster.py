"""The Ray that a run uses: the platform's, a named cluster's, or its own that ends with it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from ray_jobs.settings import Settings

log = logging.getLogger(__name__)

OBJECT_STORE = 256 * 2**20  # bytes: frames and weights travel through the store, not through Ray


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process has joined."""

    dashboard: str  # URL for jobs
    services: str  # base URL of Serve
    lasting: bool  # outlives this run, so that services may be published on it


@contextlib.contextmanager
def joined(settings: Settings, services: str = "") -> Iterator[Cluster]:
    """Join the Ray of `RAY_ADDRESS`, or start one here that ends with the block.

    `services` is the base URL at which Serve listens on a Ray that lasts.
    """
    import ray
    from ray import serve

    from ray_jobs.serving import deploy

    lasting = bool(settings.ray_address)
    # A path of its own, and short: sockets lie below it, and their names are bounded.
    folder = "" if lasting else tempfile.mkdtemp(prefix="lyceum-")
    try:
        context = _init(settings, folder)
        port = _port(services) if services else settings.http_port or free_port(settings.host)
        base = deploy.start(settings.host, port)
        yield Cluster(f"http://{context.dashboard_url}", services or base, lasting)
    finally:
        if not lasting and ray.is_initialized():
            serve.shutdown()
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _init(settings: Settings, folder: str) -> object:
    import ray

    if settings.ray_address:
        return ray.init(address=settings.ray_address, log_to_driver=False, logging_level="ERROR")
    cpus = settings.cpus or os.cpu_count()
    return ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        object_store_memory=OBJECT_STORE,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=folder,
    )


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].strip("/"))
