"""What is written down about a started platform, and whether it is still true.

`<home>/run/platform.json` names each process by pid and start; a lock beside
it is held by whoever starts or stops, so that two never do so at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.platform.environment import LOOPBACK, run_folder
from flows.platform.locks import taken
from flows.platform.ports import Ports
from flows.platform.processes import Process
from ray_jobs import store
from ray_jobs.errors import PlatformError, StoreError
from ray_jobs.settings import Settings, reachable, services_host, variable

COMPONENTS = ("prefect", "worker", "mlflow", "ray", "reconciler")
PORTS_OF = {
    "prefect": ("prefect",),
    "worker": (),
    "mlflow": ("mlflow",),
    "ray": ("ray", "dashboard", "http", "metrics"),
    "reconciler": (),
}
LOCK_LIMIT_S = 180.0


@dataclass(frozen=True)
class Platform:
    """A platform of this machine: where it answers and which processes it is."""

    prefect_api_url: str
    prefect_ui: str
    mlflow_tracking_uri: str
    ray_address: str  # host:port
    dashboard_url: str  # Ray's; asks for the home's token
    services_url: str  # services answer below it, each under its name
    processes: tuple[Process, ...]
    ports: Ports
    ray_temp: str  # a short path, since Ray puts sockets into it
    since_s: float  # Unix time of the last start

    def environment(self) -> dict[str, str]:
        """What makes Prefect, MLflow, Ray and the services run on this platform."""
        return {
            "PREFECT_API_URL": self.prefect_api_url,
            "MLFLOW_TRACKING_URI": self.mlflow_tracking_uri,
            "RAY_ADDRESS": self.ray_address,
            "RAY_API_SERVER_ADDRESS": self.dashboard_url,
            variable("http_port"): str(self.ports.http),
            "LYCEUM_HTTP_PORT": str(self.ports.http),
        }

    def alive(self, name: str) -> bool:
        return any(p.alive for p in self.processes if p.name == name)

    @property
    def metrics_url(self) -> str:
        """Where Prometheus collects what services count."""
        return f"http://{LOOPBACK}:{self.ports.metrics}/metrics"

    @property
    def whole(self) -> bool:
        """Whether every process is still the one that was started."""
        return all(self.alive(name) for name in COMPONENTS)


def describe(
    settings: Settings, ports: Ports, ray_temp: str, processes: tuple[Process, ...]
) -> Platform:
    """The record of a platform with these ports and processes."""
    console, services = reachable(settings.console_host), reachable(services_host(settings))
    return Platform(
        prefect_api_url=f"http://{console}:{ports.prefect}/api",
        prefect_ui=f"http://{console}:{ports.prefect}",
        mlflow_tracking_uri=f"http://{console}:{ports.mlflow}",
        ray_address=f"{LOOPBACK}:{ports.ray}",
        dashboard_url=f"http://{LOOPBACK}:{ports.dashboard}",
        services_url=f"http://{services}:{ports.http}",
        processes=processes,
        ports=ports,
        ray_temp=ray_temp,
        since_s=time.time(),
    )


def running(settings: Settings) -> Platform | None:
    """The platform of this home when all of it lives, else None."""
    platform = read(settings.home)
    return platform if platform is not None and platform.whole else None


def read(home: Path) -> Platform | None:
    """The last platform written down, alive or not."""
    path = _file(home)
    if not path.exists():
        return None
    try:
        values = store.read_json(str(path))
        return Platform(
            **{
                **values,
                "processes": tuple(Process(**p) for p in values["processes"]),
                "ports": Ports(**values["ports"]),
            }
        )
    except (KeyError, TypeError) as error:
        message = f"{path} is of another version ({error}); remove it, then `lyceum down`"
        raise StoreError(message) from error


def write(home: Path, platform: Platform) -> None:
    store.write_json(str(_file(home)), asdict(platform))


def forget(home: Path) -> None:
    _file(home).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(home: Path, limit_s: float = LOCK_LIMIT_S) -> Iterator[None]:
    """Hold the lock of starting and stopping; it ends with its holder, however that ends.

    Raises PlatformError when another holds it longer than the limit.
    """
    deadline = time.monotonic() + limit_s
    while True:
        with try_locked(home) as taken:
            if taken:
                yield
                return
        if time.monotonic() > deadline:
            raise PlatformError(
                f"another lyceum is starting or stopping the platform of {home}; "
                "wait for it to end, then try again"
            )
        time.sleep(0.1)


@contextlib.contextmanager
def try_locked(home: Path) -> Iterator[bool]:
    """Hold the same lock if nobody does; says whether it is held."""
    path = run_folder(home) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        yield taken(file.fileno())


def reconciler_file(home: Path) -> Path:
    """Touched by a reconciler that has looked at every service for the first time."""
    return run_folder(home) / "reconciler"


def _file(home: Path) -> Path:
    return run_folder(home) / "platform.json"
