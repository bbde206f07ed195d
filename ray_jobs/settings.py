"""Every setting of an installation, read once from the environment and `lyceum.toml`.

The environment wins over the file. Nothing is created by reading: folders
appear when something is written into them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ray_jobs.errors import UsageError
from ray_jobs.store import is_local


@dataclass(frozen=True)
class Settings:
    """Where things live and run; field `x` is `LYCEUM_X`, or the name beside it.

    A port of 0 means: the usual one, or any free one if that is taken.
    """

    home: Path = Path(".lyceum")  # databases, logs, pids, caches of this machine
    store: str = ""  # tables, checkpoints, artifacts; default <home>/store, or a fsspec URL
    key_file: Path = Path("~/.config/lyceum/key")  # secret of pseudonyms and prediction ids
    host: str = "127.0.0.1"  # where services listen
    console_host: str = "127.0.0.1"  # where MLflow and Prefect do; elsewhere they ask for passwords
    http_port: int = 0  # services; usually 8000
    https_port: int = 8443  # services, where a certificate is named
    tls_file: str = ""  # certificate, its chain and key in one PEM file; empty: no TLS
    mlflow_port: int = 0  # usually 5000
    prefect_port: int = 0  # usually 4200
    ray_port: int = 0  # usually 6379
    dashboard_port: int = 0  # Ray's; usually 8265
    metrics_port: int = 0  # of Prometheus; usually 9464
    cpus: int = 0  # CPUs Ray may use; 0 means all of the machine
    mlflow_tracking_uri: str = ""  # MLFLOW_TRACKING_URI; unset: <home>/mlflow.db
    prefect_api_url: str = ""  # PREFECT_API_URL; unset: a server of the run's own
    ray_address: str = ""  # RAY_ADDRESS; unset: a Ray of the run's own

    @property
    def store_uri(self) -> str:
        return self.store or str(self.home / "store")


FOREIGN = {
    "mlflow_tracking_uri": "MLFLOW_TRACKING_URI",
    "prefect_api_url": "PREFECT_API_URL",
    "ray_address": "RAY_ADDRESS",
}
MARKS = {"LYCEUM_API_KEY", "LYCEUM_OWNER"}  # no settings: the client's key, our processes' mark


def services_host(settings: Settings) -> str:
    """Where services listen without TLS: with a certificate, on this machine alone."""
    return Settings.host if settings.tls_file else settings.host


def reachable(host: str) -> str:
    """The address by which a server that listens on a host is reached from this machine."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104
        return Settings.host
    return f"[{host}]" if ":" in host else host


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return FOREIGN.get(name, f"LYCEUM_{name.upper()}")


def read(environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> Settings:
    """Settings of the environment over those of `lyceum.toml` in a folder (default: here).

    Raises UsageError for a name, or a value, that is not a setting's. Paths come
    out absolute, since workers run in other folders.
    """
    values: dict[str, Any] = {"home": Settings.home, "key_file": Settings.key_file}
    values |= _from_file((folder or Path.cwd()) / "lyceum.toml")
    values |= _from_environment(environ)
    for name in ("home", "key_file"):
        values[name] = values[name].expanduser().absolute()
    if values.get("tls_file"):
        values["tls_file"] = str(Path(values["tls_file"]).expanduser().absolute())
    if is_local(values.get("store", "")):
        values["store"] = _absolute(values.get("store", ""))
    return Settings(**values)


def _absolute(store: str) -> str:
    path = Path(store.removeprefix("file://")).expanduser()
    return str(path.absolute()) if store else ""


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    names = {variable(f.name): f.name for f in fields(Settings)}
    for name in environ:
        # A misspelt setting must not be silently the default.
        if name.startswith("LYCEUM_") and name not in names and name not in MARKS:
            raise UsageError(f"{name}: no such setting; there are {', '.join(names)}")
    return {
        names[variable_]: _typed(names[variable_], text, variable_)
        for variable_, text in environ.items()
        if variable_ in names and text
    }


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    names = [f.name for f in fields(Settings)]
    for name in values:
        if name not in names:
            raise UsageError(f"{path}: no setting {name!r}; there are {', '.join(names)}")
    return {n: _typed(n, str(value), f"{path}: {n}") for n, value in values.items() if value != ""}


def _typed(name: str, text: str, where: str) -> Any:
    kind = type(getattr(Settings, name))
    try:
        return int(text) if kind is int else Path(text) if issubclass(kind, Path) else text
    except ValueError as error:
        raise UsageError(f"{where}={text!r}; expected a whole number") from error
