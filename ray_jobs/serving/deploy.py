"""Releases onto Ray Serve: go live beside the old version, take traffic, or leave no trace.

One application per service, under `/<service>`. A version that cannot load or
answer its golden requests never takes traffic: Serve keeps the old replica
until the new one is healthy.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import httpx
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, LoggingConfig

from ray_jobs.errors import PlatformError, ServiceError
from ray_jobs.recipe import Resources
from ray_jobs.serving.release import Release
from ray_jobs.serving.site import Site

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0
POLL_S = 0.1
ONGOING = 256  # requests a replica takes at once; more than a batch, so that batches fill
BUSY = 32  # requests at once, above which one replica wants another beside it
WARM_UP = 10  # requests before latencies count
LINEAGE = "[0-9a-f]{8}"  # how the name of a candidate ends
FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)


def start(host: str, port: int) -> None:
    """Start Serve on the joined Ray, or find it started.

    Raises PlatformError where it listens at another port already.
    """
    # Its INFO lines tell a person nothing, and of another port we say more below.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options=HTTPOptions(host=host, port=port), proxy_location="HeadOnly")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    client: Any = _get_global_client()  # there is one, or it raises
    there = client.http_config.port
    if there != port:
        raise PlatformError(
            f"Serve on this Ray listens at port {there} already, not at {port}; set "
            f"LYCEUM_HTTP_PORT={there}, or stop it with all its services: serve shutdown"
        )


def publish(
    release: Release,
    base_url: str,
    *,
    site: Site,
    resources: Resources,
    previous: Release | None = None,
) -> str:
    """Make a release the live one of its service and return its URL.

    What is live already stays as it is. Where the release does not get healthy
    the previous one is put back, since Serve would replace a replica lost later
    by the broken one; the ServiceError says why it broke. UsageError: it may not serve.
    """
    release.refuse_barred()
    url = f"{base_url}/{release.service}"
    if is_live(url, release) and _state(release.service) == ApplicationStatus.RUNNING:
        log.info("%s version %s is live already", release.service, release.version)
        return url
    try:
        return deploy(release, base_url, site=site, resources=resources)
    except ServiceError:
        _put_back(release, previous, base_url, site=site)
        raise


def deploy(
    release: Release, base_url: str, *, site: Site, resources: Resources, name: str = ""
) -> str:
    """Start a release as an application and return its URL, once it alone answers there.

    The old version serves until this one does. Raises ServiceError with the
    replica's own words when it does not get healthy.
    """
    from ray_jobs.serving.replica import Deployment

    name = name or release.service
    application = Deployment.options(
        **_copies(resources),
        max_ongoing_requests=ONGOING,
        max_surge_percent=100,  # the new replica stands before the old one goes
        max_constructor_retry_count=1,  # what cannot load now cannot load in a second either
        ray_actor_options={"num_cpus": resources.replica_cpus},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config=LoggingConfig(encoding="JSON", enable_access_log=False, log_level="WARNING"),
    ).bind(asdict(release), name, site, alone=max(resources.replicas, resources.most_replicas) == 1)
    target = serve.RunTarget(application, name=name, route_prefix=f"/{name}")
    serve.run_many([target], wait_for_applications_running=False)
    url = f"{base_url}/{name}"
    _await_live(name, url, release)
    return url


def _copies(resources: Resources) -> dict[str, Any]:
    """How many replicas there are, or between which numbers, as requests wait."""
    least, most = resources.replicas, resources.most_replicas
    if most <= least:
        return {"num_replicas": least}
    bounds = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": BUSY}
    return {"autoscaling_config": bounds}


def remove(name: str) -> None:
    """Take an application down and wait until it is gone; nothing there is fine."""
    try:
        serve.delete(name)
    except TimeoutError as error:
        raise ServiceError(f"service {name} could not be taken down: {error}") from error


@contextlib.contextmanager
def candidate(
    release: Release, base_url: str, *, site: Site, resources: Resources
) -> Iterator[str]:
    """The URL of a release in a replica of its own, gone when the block ends.

    What a gate of the service left that was killed goes first: runs of one take turns.
    """
    of_service = f"candidate-{release.service}-"
    for left in serve.status().applications:
        # Another service may be named as this one is, and go on.
        if re.fullmatch(re.escape(of_service) + LINEAGE, left):
            log.warning("%s was left by a run that was killed; taking it down", left)
            remove(left)
    name = f"{of_service}{release.lineage[:8]}"
    try:
        yield deploy(release, base_url, site=site, resources=resources, name=name)
    finally:
        remove(name)


def latencies_ms(url: str, release: Release, *, token: str, count: int = 100) -> list[float]:
    """Round trips of single golden requests, one after another; `token` lets them in.

    Raises ServiceError when one of them is not answered.
    """
    bodies = [case["request"] for case in release.golden]
    taken: list[float] = []
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(timeout=30, trust_env=False, headers=headers) as client:
        for number in range(count + WARM_UP):
            begin = time.perf_counter()
            try:
                answer = client.post(f"{url}/v1/predict", json=bodies[number % len(bodies)])
            except httpx.TransportError as error:
                raise ServiceError(f"{url}/v1/predict went silent: {error!r}") from error
            if answer.status_code != 200:
                raise ServiceError(f"{url}/v1/predict: {answer.status_code} {answer.text[:200]}")
            if number >= WARM_UP:
                taken.append(1000 * (time.perf_counter() - begin))
    return taken


def is_live(url: str, release: Release) -> bool:
    """Whether a service answers its golden request there, as this very release."""
    body = _asked(f"{url}/readyz")
    return body.get("lineage") == release.lineage and body.get("version") == release.version


def live_version(url: str) -> str | None:
    """The version that answers at a service's URL, or None when nobody does."""
    return _asked(f"{url}/healthz").get("version")


def _put_back(
    failed: Release,
    previous: Release | None,
    base_url: str,
    *,
    site: Site,
) -> None:
    """Make Serve want the previous release again, or nothing where there was none.

    Whoever else answers was put live meanwhile, from another home, and stays.
    """
    service = failed.service
    answers = live_version(f"{base_url}/{service}")
    try:
        if previous is not None and answers not in {None, failed.version, previous.version}:
            log.warning("%s stays on version %s, which went live meanwhile", service, answers)
        elif previous is not None and previous.lineage != failed.lineage:
            log.warning("%s stays on version %s", service, previous.version)
            deploy(previous, base_url, site=site, resources=Resources(**previous.resources))
        elif answers is None:
            remove(service)
    except ServiceError:
        # The caller is about to say what failed first.
        log.exception("%s: the previous release could not be put back", service)


def _await_live(name: str, url: str, release: Release) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    # Running means that the old replicas have left, so that no other version answers.
    while not (_running(name) and is_live(url, release)):
        if time.monotonic() > deadline:
            raise ServiceError(
                f"service {name} did not answer as version {release.version or 'unregistered'}, "
                f"lineage {release.lineage}, at {url} within {START_LIMIT_S:.0f} s; "
                "the Ray dashboard says what its replica waits for"
            )
        time.sleep(POLL_S)


def _running(name: str) -> bool:
    application = serve.status().applications.get(name)
    if application is None:
        return False
    if application.status in FAILED:
        messages = [application.message, *(d.message for d in application.deployments.values())]
        raise ServiceError(f"service {name} could not start: {last_words(messages)}")
    return application.status == ApplicationStatus.RUNNING


def _state(name: str) -> ApplicationStatus | None:
    application = serve.status().applications.get(name)
    return application.status if application else None


def last_words(messages: list[str]) -> str:
    """What went wrong, from a replica's traceback, without the way there."""
    lines = [line.strip() for text in messages for line in text.splitlines()]
    errors = [line for line in lines if "Error: " in line and "ray::" not in line]
    if not errors:
        return " ".join(lines[-5:])[-500:]
    kind, _, words = errors[-1].partition(": ")
    # Our own errors are whole sentences; of others the kind tells something.
    return words if kind.startswith("ray_jobs.errors.") else errors[-1]


def _asked(url: str) -> dict[str, Any]:
    """What a service says of itself; empty when nobody, or somebody else, answers."""
    try:
        answer = httpx.get(url, timeout=5, trust_env=False)
        body = answer.json() if answer.status_code == 200 else {}
    except (httpx.TransportError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}
