"""Whether the servers that a command needs answer: asked before any work, so that none is lost."""

from __future__ import annotations

import httpx

from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings, variable

LIMIT_S = 10.0


def must_answer(settings: Settings) -> None:
    """Raise PlatformError for a Prefect or MLflow that was named and does not answer."""
    uri = settings.mlflow_tracking_uri
    if uri.startswith("http"):
        _asked("MLflow", variable("mlflow_tracking_uri"), uri, f"{uri.rstrip('/')}/health")
    url = settings.prefect_api_url
    if url:
        _asked("Prefect", variable("prefect_api_url"), url, f"{url.rstrip('/')}/health")


def _asked(who: str, name: str, url: str, health: str) -> None:
    try:
        answer = httpx.get(health, timeout=LIMIT_S)
        found = "" if answer.is_success else f"answers {answer.status_code}"
    except (httpx.TransportError, httpx.InvalidURL) as error:
        found = f"does not answer ({error or type(error).__name__})"
    if found:
        raise PlatformError(
            f"{who} at {url} {found}; start it, or unset {name} to have one of the run's own. "
            "On this machine `lyceum up` starts both"
        )
