"""A Ray of a test's own with Serve on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.platform import embedded, environment
from ray_jobs.cluster import Cluster, joined
from ray_jobs.privacy import load_key
from ray_jobs.settings import Settings


@contextmanager
def serving(home: Path) -> Iterator[tuple[Settings, Cluster]]:
    """Settings of a home, and the cluster that they lead to; gone with the block."""
    settings = Settings(home=home, key_file=home / "key", cpus=2)
    load_key(settings.key_file)  # as who ingests does
    # Ray read what concerns its own processes when it was imported; Serve's start later.
    serve = {k: v for k, v in environment(settings).items() if k.startswith("RAY_SERVE")}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "SPT_NOENV": "1"}
    with pytest.MonkeyPatch.context() as patched, embedded(settings) as own:
        for name, value in (serve | quiet | own.environment).items():
            patched.setenv(name, value)
        with joined(settings, folder=own.ray_temp, port=own.http_port) as cluster:
            yield settings, cluster
