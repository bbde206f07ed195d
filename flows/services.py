"""Services as a person steers them: what there is, promote, roll back, put live again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flows.platform import Platform
from flows.platform import status as platform_status
from ray_jobs.cluster import Cluster, joined
from ray_jobs.errors import ServiceError, UsageError
from ray_jobs.recipe import Resources
from ray_jobs.serving import deploy
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tasks import register as registry
from tasks import tracking
from tasks.record import Registry

log = logging.getLogger(__name__)


def status(settings: Settings) -> dict[str, Any]:
    """The platform and its services, JSON-able."""
    return {**platform_status(settings), "services": listed(settings)}


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Every registered service with its champion, and the version that answers now."""
    mlflow = _registry(settings)
    found = []
    for model in mlflow.client.search_registered_models():
        champion = registry.find(mlflow.client, model.name, registry.CHAMPION)
        versions = mlflow.client.search_model_versions(f"name = '{model.name}'")
        url = f"{_services_url(settings)}/{model.name}" if settings.ray_address else None
        live = deploy.live_version(url) if url else None
        found.append(
            {
                "service": model.name,
                "versions": len(versions),
                "champion": champion.version if champion else None,
                "auc": champion.tags.get("auc") if champion else None,
                "live": live,
                "endpoint": url if live else None,
            }
        )
    return found


def promote(settings: Settings, service: str, version: int) -> str:
    """Put a version live where Ray lasts, then make it champion; says what it did.

    Raises UsageError when there is none, ServiceError when it cannot be served:
    the champion then stays who it was.
    """
    mlflow = _registry(settings)
    registry.resolve(mlflow.client, service, version)
    release = mlflow.release(service, version)
    assert release is not None
    where = _put_live(settings, release)
    registry.crown(mlflow.client, service, version)
    return f"{service}: version {version} is champion{where}"


def rollback(settings: Settings, service: str) -> str:
    """Promote the champion before this one; raises UsageError when there was none."""
    mlflow = _registry(settings)
    registry.resolve(mlflow.client, service, registry.CHAMPION)
    before = registry.find(mlflow.client, service, registry.PREVIOUS)
    if before is None:
        raise UsageError(f"{service} had no champion before this one; nothing to go back to")
    return promote(settings, service, before.version)


def republish(settings: Settings, platform: Platform) -> Iterator[str]:
    """Put every champion live that a fresh platform does not serve yet; a line for each."""
    here = replace(
        settings,
        ray_address=platform.ray_address,
        mlflow_tracking_uri=platform.mlflow_tracking_uri,
        http_port=platform.ports.http,
    )
    mlflow = _registry(here)
    for row in listed(here):
        if row["champion"] is None or row["live"] == str(row["champion"]):
            continue
        release = mlflow.champion(row["service"])
        assert release is not None
        try:
            yield f"    service {release.service}, version {release.version}{_put_live(here, release)}"
        except ServiceError as error:
            yield f"    service {release.service} is not live: {error}"


def _put_live(settings: Settings, release: Release) -> str:
    if not settings.ray_address:
        return " (no platform is up, so it is not live yet; lyceum up serves it)"
    with _cluster(settings) as cluster:
        url = deploy.deploy(
            release, cluster.services, key_file=str(settings.key_file), resources=Resources()
        )
    return f", live at {url}"


@contextmanager
def _cluster(settings: Settings) -> Iterator[Cluster]:
    with joined(settings) as cluster:
        yield cluster


def _registry(settings: Settings) -> Registry:
    uri = tracking.tracking_uri(settings)
    return Registry(tracking.connect(uri), uri)


def _services_url(settings: Settings) -> str:
    return f"http://{settings.host}:{settings.http_port}"
