"""A real MLflow registry for tests, and services in it as the pipeline leaves them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tasks import connection
from tasks.record import RELEASE
from tasks.register import CHAMPION, HEADLINE, find


def connected(settings: Settings) -> MlflowClient:
    """The registry of a home, empty where it is new."""
    database = settings.home / "mlflow.db"
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        database.write_bytes(_empty_database())
    return connection.connect(connection.tracking_uri(settings))


@cache
def _empty_database() -> bytes:
    """Made once: MLflow takes seconds to lay out its tables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        connection.connect(f"sqlite:///{path}").search_experiments()
        return path.read_bytes()


def registered(
    client: MlflowClient,
    settings: Settings,
    service: str,
    versions: int,
    *,
    tagged: bool = True,
    resources: dict[str, Any] | None = None,
    barred: str = "",
) -> None:
    """A service with versions of it, as the pipeline leaves them, but for the models."""
    client.create_registered_model(service, {"family": "knowledge"})
    for number in range(1, versions + 1):
        uri = str(release_file(settings, service, number))
        lineage = f"{number:032x}"
        Release(
            service=service,
            family="knowledge",
            lineage=lineage,
            artifact="none",
            digest="0" * 64,
            golden=[],
            card={},
            resources=resources or {},
            version=str(number),
            barred=barred,
        ).save(uri)
        figure = {HEADLINE: "auc", "auc": f"0.8{number}"}
        tags = {RELEASE: uri, **figure} if tagged else {}
        client.create_model_version(service, source=str(settings.home), tags=tags)


def release_file(settings: Settings, service: str, version: int) -> Path:
    return settings.home / "releases" / f"{service}-{version}.json"


def crowned(client: MlflowClient, service: str, alias: str = CHAMPION) -> int | None:
    found = find(client, service, alias)
    return found.version if found else None
