"""Publish: a version becomes the live service, or the old one stays and the reason is said."""

from __future__ import annotations

import logging

from prefect import task

from ray_jobs.cluster import Cluster
from ray_jobs.recipe import Resources
from ray_jobs.serving import deploy
from ray_jobs.serving.release import Release
from ray_jobs.serving.site import Site
from tasks.retry import RETRIES

log = logging.getLogger(__name__)


@task(name="publish", **RETRIES)
def publish(
    release: Release,
    cluster: Cluster,
    *,
    site: Site,
    resources: Resources,
    previous: Release | None = None,
) -> str:
    """Make a release live and return its URL; where it fails, the previous one is put back."""
    url = deploy.publish(
        release, cluster.services, site=site, resources=resources, previous=previous
    )
    log.info("publish: %s version %s answers at %s", release.service, release.version, url)
    return url
