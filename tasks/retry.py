"""When trying again can help: a network or a server that was away, never a wrong input."""

from __future__ import annotations

from typing import Any

import httpx
from mlflow.exceptions import MlflowException

TRANSIENT = (ConnectionError, TimeoutError, httpx.TransportError)


def worth_it(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: whether the failure may pass by itself."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code()) >= 500  # type: ignore[no-untyped-call]
    return isinstance(error, TRANSIENT)


RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_condition_fn": worth_it,
}
