"""The installation a command works on: its settings, its environment, its platform if one is up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flows.platform import Platform, environment, reap, running
from flows.platform.environment import prepare
from flows.platform.processes import MARK, Process, run_mark
from flows.platform.reach import must_answer
from ray_jobs import settings as installation
from ray_jobs import store
from ray_jobs.settings import FOREIGN, Settings, variable


@dataclass(frozen=True)
class Session:
    """Settings as they are in force, and the platform they lead to."""

    settings: Settings
    platform: Platform | None


def session(*, use_platform: bool = True, ask: bool = True) -> Session:
    """Read the settings and apply their environment, before Prefect, Ray or MLflow is imported.

    With a platform up, Prefect, MLflow and Ray run there, unless a variable
    names another place for one of them. Raises PlatformError where one that is
    needed does not answer; without `ask` nobody is asked.
    """
    settings = installation.read()
    prepare(settings.home)
    mark = {MARK: run_mark(settings.home, Process.of("run", os.getpid()))}
    named = {variable(n): str(getattr(settings, n)) for n in FOREIGN if getattr(settings, n)}
    # What a command starts, such as Prefect's server where none is up, is known by its mark.
    _apply(_ours(settings) | named | QUIET | mark)
    reap(settings)
    platform = running(settings)
    if platform is not None and use_platform:
        _apply(platform.environment(), keep=True)
    found = installation.read()
    if use_platform and ask:
        must_answer(found)
    return Session(found, platform)


def _ours(settings: Settings) -> dict[str, str]:
    """The environment of a home, but for what somebody has said of how to join a Ray elsewhere."""
    elsewhere = bool(settings.ray_address)
    given = {n for n in os.environ if elsewhere and n.startswith("RAY_AUTH_")}
    return {n: v for n, v in environment(settings).items() if n not in given}


# A person sees our own lines; Prefect's and MLflow's are for their own pages.
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def absolute(data: str | None) -> str | None:
    """A local path as it is from anywhere; URLs stay."""
    if data is None or not store.is_local(data):
        return data
    return str(Path(data).expanduser().absolute())


def _apply(values: dict[str, str], *, keep: bool = False) -> None:
    for name, value in values.items():
        if not (keep and os.environ.get(name)):
            os.environ[name] = value
