"""Where a run comes from: the code's commit, the flow run, the settings, as flat text.

What ends up as tags and parameters, so that a figure leads back to its making.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray_jobs


def code_tags() -> dict[str, str]:
    """Which code ran: the commit of the checkout it lies in, or else the package's version."""
    here = Path(ray_jobs.__file__)
    tags = {
        "lyceum.version": ray_jobs.__version__,
        "mlflow.source.name": "lyceum",
        "mlflow.source.type": "JOB",
    }
    # Installed inside someone else's checkout, the code is not that checkout's.
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        return tags
    commit, changes = _git(here, "rev-parse", "HEAD"), _git(here, "status", "--porcelain", "-uno")
    if commit is None or changes is None:
        return tags
    dirty = str(bool(changes)).lower()
    return tags | {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": dirty}


def flow_tags() -> dict[str, str]:
    """The Prefect flow run this happens in, if it does."""
    from prefect.runtime import flow_run

    if not flow_run.id:
        return {}
    tags = {"prefect.flow_run_id": str(flow_run.id)}
    # A server that ends with the run has no pages.
    if flow_run.ui_url.startswith("http"):
        tags["prefect.flow_run_url"] = flow_run.ui_url
    return tags


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings with dotted names, as MLflow's parameters are."""
    result: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = str(value)
    return result


def _git(path: Path, *arguments: str) -> str | None:
    """What git says beside a file; None where there is no git, or no checkout."""
    command = ["git", "-C", str(path.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
