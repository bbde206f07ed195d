"""A version of the registry, live: put there, found there, put back.

Whoever changes what is live does so alone, and says whom it replaces.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from flows.platform.locks import held, lock
from ray_jobs.cluster import Cluster, joined, services_url
from ray_jobs.errors import LyceumError, StoreError, UsageError
from ray_jobs.recipe import Resources
from ray_jobs.serving import deploy
from ray_jobs.serving.release import Release
from ray_jobs.serving.site import Site
from ray_jobs.settings import Settings
from tasks import register as registry
from tasks.record import RELEASE, Registry

log = logging.getLogger(__name__)

NOT_LIVE = " (no platform is up, so it is not live yet; lyceum up serves it)"


def serve(
    settings: Settings,
    mlflow: Registry,
    service: str,
    version: int,
    before: registry.Version | None,
) -> str:
    """Put a version live, where Ray lasts, in the place of another; where it is now."""
    release = release_of(mlflow, service, version)
    release.refuse_barred()
    if not settings.ray_address:
        return NOT_LIVE
    previous = _way_back(mlflow, before)
    with joined(settings) as cluster:
        return publish(settings, cluster, release, previous)


def put_back(
    settings: Settings,
    mlflow: Registry,
    failed: registry.Version,
    before: registry.Version | None,
) -> None:
    """Have Serve want a version again, live or not; the caller will say what failed first.

    Whoever else answers was put live meanwhile, from another home, and stays.
    """
    if before is None:
        return
    answers = answering(settings, before.service)
    if answers not in {None, str(failed.version), str(before.version)}:
        log.warning("%s stays on version %s, which went live meanwhile", before.service, answers)
        return
    try:
        serve(settings, mlflow, before.service, before.version, None)
    except LyceumError as error:
        log.warning("%s: version %d is not live: %s", before.service, before.version, error)


def alone(settings: Settings, service: str, what: str) -> AbstractContextManager[None]:
    """Nobody else changes what is live meanwhile; a run of the service may be at work."""
    path = lock(settings, service, "live")
    return held(path, what, lambda who: log.warning("%s: %s", service, who))


def answering(settings: Settings, service: str) -> str | None:
    """The version that answers for a service where Ray lasts, or None when nobody does."""
    url = f"{services_url(settings)}/{service}"
    return deploy.live_version(url) if settings.ray_address else None


def release_of(mlflow: Registry, service: str, which: str | int) -> Release:
    """The release of a version, by its number or an alias; raises UsageError, StoreError."""
    found = registry.resolve(mlflow.client, service, which)
    if RELEASE not in found.tags:
        raise UsageError(
            f"version {found.version} of {service!r} was only half registered; run its recipe again"
        )
    try:
        release = Release.load(found.tags[RELEASE])
        Resources(**release.resources)
    except TypeError as error:
        raise StoreError(
            f"{found.tags[RELEASE]} is no release of this Lyceum ({error}); run its recipe again"
        ) from error
    return release


def publish(
    settings: Settings, cluster: Cluster, release: Release, previous: Release | None
) -> str:
    url = deploy.publish(
        release,
        cluster.services,
        site=Site.of(settings),
        resources=Resources(**release.resources),
        previous=previous,
    )
    return f", live at {url}"


def _way_back(mlflow: Registry, before: registry.Version | None) -> Release | None:
    """The release of a version, if it can be read; if not, it must not stand in the way."""
    try:
        return release_of(mlflow, before.service, before.version) if before else None
    except (StoreError, UsageError) as error:
        log.warning("no way back from what goes live now: %s", error)
        return None
