"""A platform for tests: one that is only written down, and one of small real servers."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from flows.platform import lifecycle, ports, record, starting
from flows.platform.components import Component
from flows.platform.environment import mlflow_database, prepare
from flows.platform.ports import InnerPorts, Ports
from flows.platform.processes import MARK, Process, marked, platform_mark
from flows.platform.record import COMPONENTS, Platform
from ray_jobs.settings import Settings

NOWHERE = Ports(http=1, mlflow=2, prefect=3, ray=4, dashboard=5)


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
