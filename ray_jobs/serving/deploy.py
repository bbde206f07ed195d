"""Releases onto Ray Serve: go live beside the old version, take traffic, or leave no trace.

One application per service, under `/<service>`. A version that cannot load or
answer its golden requests never takes traffic: Serve keeps the old replica
until the new one is healthy.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import httpx
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus, LoggingConfig

from ray_jobs.errors import ServiceError
from ray_jobs.recipe import Resources
from ray_jobs.serving.release import Release

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0
ONGOING = 256  # requests a replica takes at once; more than a batch, so that batches fill


def start(host: str, port: int) -> str:
    """Start Serve on the joined Ray, or find it started; returns its base URL."""
    serve.start(http_options=HTTPOptions(host=host, port=port), proxy_location="HeadOnly")
    return f"http://{host}:{port}"


def deploy(
    release: Release, base_url: str, *, key_file: str, resources: Resources, name: str = ""
) -> str:
    """Publish a release as an application and return its URL, once it answers there.

    The old version serves until this one does. Raises ServiceError with the
    replica's own words when it does not get healthy.
    """
    from ray_jobs.serving.replica import Deployment

    name = name or release.service
    application = Deployment.options(
        name="replica",
        num_replicas=resources.replicas,
        max_ongoing_requests=ONGOING,
        max_surge_percent=100,  # the new replica stands before the old one goes
        ray_actor_options={"num_cpus": resources.replica_cpus},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=10,
        logging_config=LoggingConfig(enable_access_log=False),
    ).bind(asdict(release), name, key_file)
    target = serve.RunTarget(application, name=name, route_prefix=f"/{name}")
    serve.run_many([target], wait_for_applications_running=False)
    url = f"{base_url}/{name}"
    _await_live(name, url, release)
    return url


def remove(name: str) -> None:
    """Take an application down and wait until it is gone."""
    serve.delete(name)


@contextlib.contextmanager
def candidate(
    release: Release, base_url: str, *, key_file: str, resources: Resources
) -> Iterator[str]:
    """The URL of a release in a replica of its own, gone when the block ends."""
    name = f"candidate-{release.service}-{release.lineage[:8]}"
    try:
        yield deploy(release, base_url, key_file=key_file, resources=resources, name=name)
    finally:
        remove(name)


def latencies_ms(url: str, release: Release, *, count: int = 100) -> list[float]:
    """Round trips of single golden requests, one after another."""
    bodies = [case["request"] for case in release.golden]
    taken: list[float] = []
    with httpx.Client(timeout=30) as client:
        for number in range(count + 10):
            begin = time.perf_counter()
            answer = client.post(f"{url}/v1/predict", json=bodies[number % len(bodies)])
            if answer.status_code != 200:
                raise ServiceError(f"{url}/v1/predict: {answer.status_code} {answer.text[:200]}")
            if number >= 10:  # the first ones warm caches
                taken.append(1000 * (time.perf_counter() - begin))
    return taken


def _await_live(name: str, url: str, release: Release) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    with httpx.Client(timeout=5) as client:
        while not (_running(name) and _answers(client, url, release)):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"service {name} did not answer as version {release.version or release.lineage} "
                    f"at {url} within {START_LIMIT_S:.0f} s; see the Ray dashboard"
                )
            time.sleep(0.1)


def _running(name: str) -> bool:
    application = serve.status().applications.get(name)
    if application is None:
        return False
    failed = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
    if application.status in failed:
        words = [application.message, *(d.message for d in application.deployments.values())]
        raise ServiceError(f"service {name} could not start: {_last_words(words)}")
    return bool(application.status == ApplicationStatus.RUNNING)


def _last_words(messages: list[str]) -> str:
    """The line of a replica's traceback that names the error, and not the way there."""
    lines = [line.strip() for text in messages for line in text.splitlines()]
    errors = [line for line in lines if "Error: " in line and "ray::" not in line]
    return errors[-1] if errors else " ".join(lines)[:500]


def _answers(client: httpx.Client, url: str, release: Release) -> bool:
    try:
        answer = client.get(f"{url}/readyz")
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        return False
    body: dict[str, Any] = answer.json()
    return bool(body["lineage"] == release.lineage and body["version"] == release.version)


def live_version(url: str) -> str | None:
    """The version that answers at a service's URL, or None when nobody does."""
    try:
        answer = httpx.get(f"{url}/healthz", timeout=5)
    except httpx.TransportError:
        return None
    return str(answer.json()["version"]) if answer.status_code == 200 else None
