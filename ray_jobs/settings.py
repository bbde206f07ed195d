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

from ray_jobs.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Where things live and run; field `x` is `LYCEUM_X`, or the name beside it.

    A port of 0 means: the usual one, or any free one if that is taken.
    """

    home: Path = Path(".lyceum")  # databases, logs, pids, caches of this machine
    store: str = ""  # tables, checkpoints, artifacts; default <home>/store, or a fsspec URL
    key_file: Path = Path("~/.config/lyceum/key")  # secret of pseudonyms and prediction ids
    host: str = "127.0.0.1"  # where servers listen
    http_port: int = 0  # services; usually 8000
    mlflow_port: int = 0  # usually 5000
    prefect_port: int = 0  # usually 4200
    ray_port: int = 0  # usually 6379
    dashboard_port: int = 0  # Ray's; usually 8265
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


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return FOREIGN.get(name, f"LYCEUM_{name.upper()}")


def read(environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> Settings:
    """Settings of the environment over those of `lyceum.toml` in a folder (default: here).

    Raises UsageError for a name in the file, or a value, that is not a setting's.
    """
    values = _from_file((folder or Path.cwd()) / "lyceum.toml")
    for f in fields(Settings):
        text = environ.get(variable(f.name), "")
        if text:
            values[f.name] = text
    typed = {name: _typed(name, text) for name, text in values.items()}
    home = Path(typed.get("home", Settings.home)).expanduser().absolute()
    key_file = Path(typed.get("key_file", Settings.key_file)).expanduser().absolute()
    return Settings(**{**typed, "home": home, "key_file": key_file})


def _from_file(path: Path) -> dict[str, str]:
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
    return {name: str(value) for name, value in values.items()}


def _typed(name: str, text: str) -> str | int | Path:
    kind = type(getattr(Settings, name))
    try:
        return kind(text)
    except ValueError as error:
        raise UsageError(f"{variable(name)}={text!r}: expected {kind.__name__}") from error
