"""The ports a platform listens on, chosen so that two platforms never share one.

A port that a setting names is taken as it is or refused; one left at 0 is the
usual port when that is free, and any free one otherwise.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields

from flows.platform.environment import LOOPBACK
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings, services_host, variable

# Below those that a system gives to connections, of which any may be taken in the meantime.
OURS = range(20_000, 32_768)
# What the settings can name: the usual port and who wants it.
USUAL = {
    "http": (8000, "the services"),
    "mlflow": (5000, "MLflow"),
    "prefect": (4200, "Prefect"),
    "ray": (6379, "Ray"),
    "dashboard": (8265, "Ray's dashboard"),
    "metrics": (9464, "the page of metrics"),
}


@dataclass(frozen=True)
class Ports:
    """Where the servers of a platform listen."""

    http: int
    mlflow: int
    prefect: int
    ray: int
    dashboard: int
    metrics: int


@dataclass(frozen=True)
class InnerPorts:
    """Ports of Ray's own that would collide between two platforms at their defaults."""

    client: int
    agent: int
    fallback_proxy: int
    haproxy_stats: int
    haproxy_metrics: int


def choose(settings: Settings, live: Mapping[str, int], before: Ports | None = None) -> Ports:
    """A port for each server: that of a live one, else the one it had before, else a new one.

    Raises PlatformError when a port named by a setting is taken.
    """
    had = asdict(before) if before is not None else {}
    chosen = dict(live)
    # What a setting names comes first, or a usual port might be given away to another.
    for name in sorted(USUAL, key=lambda name: not getattr(settings, f"{name}_port")):
        if name not in chosen:
            chosen[name] = _choose(settings, name, had.get(name, 0), set(chosen.values()))
    return Ports(**chosen)


def inner(taken: Collection[int] = ()) -> InnerPorts:
    """Five free ports that differ, also from those `taken` by servers yet to start."""
    drawn: list[int] = []
    while len(drawn) < len(fields(InnerPorts)):
        drawn.append(any_free(LOOPBACK, {*taken, *drawn}))
    return InnerPorts(*drawn)


def any_free(host: str, taken: Collection[int] = ()) -> int:
    """A port nobody listens on now, none `taken`, and that no connection is given before we do."""
    chance = random.SystemRandom()
    drawn = iter(lambda: chance.choice(OURS), 0)
    return next(port for port in drawn if port not in taken and free(host, port))


def free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # Connections that a stopped server left in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listens_on(settings: Settings, name: str) -> str:
    """Ray never leaves the loopback address; the other servers listen where a setting says."""
    if name in {"ray", "dashboard", "metrics"}:
        return LOOPBACK
    return services_host(settings) if name == "http" else settings.console_host


def _choose(settings: Settings, name: str, had: int, taken: set[int]) -> int:
    host, asked = listens_on(settings, name), int(getattr(settings, f"{name}_port"))
    usual, who = USUAL[name]
    if asked:
        if asked in taken or not free(host, asked):
            raise PlatformError(
                f"port {asked} of {host} is taken, and {who} should listen there; stop what "
                f"uses it, or set {variable(f'{name}_port')} to another port (0: any free one)"
            )
        return asked
    for port in (had, usual):
        if port and port not in taken and free(host, port):
            return port
    return any_free(host, taken)
