"""What runs on this machine and where it answers, for people and for scripts."""

from __future__ import annotations

import time
from typing import Any

from flows.platform.environment import logs_folder, mlflow_database
from flows.platform.record import COMPONENTS, Platform, read
from ray_jobs.settings import Settings


def status(settings: Settings) -> dict[str, Any]:
    """The state of the platform, JSON-able; `mlflow_tracking_uri` works whatever the state.

    `state` is up, down, or degraded when part of a started platform died.
    """
    platform = read(settings.home)
    alive = [n for n in COMPONENTS if platform is not None and platform.alive(n)]
    state = "up" if len(alive) == len(COMPONENTS) else "degraded" if alive else "down"
    return {
        "state": state,
        "home": str(settings.home),
        "store": settings.store_uri,
        "logs": str(logs_folder(settings.home)),
        "mlflow_tracking_uri": tracking_uri(settings, platform),
        "processes": _processes(platform) if alive and platform else [],
        **(_addresses(platform) if alive and platform else {}),
    }


def tracking_uri(settings: Settings, platform: Platform | None) -> str:
    """Where MLflow answers: the one named by the setting, the live server, or its database."""
    if settings.mlflow_tracking_uri:
        return settings.mlflow_tracking_uri
    if platform is not None and platform.alive("mlflow"):
        return platform.mlflow_tracking_uri
    return mlflow_database(settings.home)


def _addresses(platform: Platform) -> dict[str, Any]:
    return {
        "uptime_s": round(time.time() - platform.since_s, 1),
        "prefect_ui": platform.prefect_ui,
        "prefect_api_url": platform.prefect_api_url,
        "ray_address": platform.ray_address,
        "dashboard_url": platform.dashboard_url,
        "services_url": platform.services_url,
        "metrics_url": platform.metrics_url,
    }


def _processes(platform: Platform) -> list[dict[str, Any]]:
    return [
        {"name": p.name, "pid": p.pid, "state": "up" if p.alive else "dead"}
        for p in platform.processes
    ]
