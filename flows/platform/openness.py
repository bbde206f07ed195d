"""What may be reached from other machines, and what must ask for a password then."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flows.platform import ports
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings, variable

# What turns on the authentication of each, by its own name.
ASKING = {
    "Prefect": "PREFECT_SERVER_API_AUTH_STRING",
    "MLflow": "MLFLOW_AUTH_CONFIG_PATH",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    return re.fullmatch(r"127\..*|localhost|::1", host) is not None


def refuse_open(settings: Settings, *, served: bool = False) -> None:
    """Raise PlatformError for a console that others reach without a password, or a TLS file amiss.

    Prefect and MLflow let whoever reaches them change what is served. `served` says that
    services are up already, and hold their port.
    """
    open_ = [f"{who} ({name})" for who, name in ASKING.items() if not os.environ.get(name)]
    if open_ and not is_loopback(settings.console_host):
        raise PlatformError(
            f"{variable('console_host')}={settings.console_host}: others would reach "
            f"{' and '.join(open_)} without a password; set the variables in brackets, which turn "
            "their own authentication on, or leave both on this machine"
        )
    if not settings.tls_file:
        return
    path = Path(settings.tls_file)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise PlatformError(
            f"{variable('tls_file')}={path}: no file that can be read; name a PEM file with the "
            "certificate, its chain and its key"
        )
    if "PRIVATE KEY" not in path.read_text(errors="replace"):
        raise PlatformError(f"{variable('tls_file')}={path}: no private key in it; append it")
    if not served and not ports.free(settings.host, settings.https_port):
        raise PlatformError(
            f"port {settings.https_port} of {settings.host} is taken, where services should speak "
            f"TLS; set {variable('https_port')} to another"
        )
