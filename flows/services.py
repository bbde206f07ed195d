"""Services as a person steers them: what there is, promote, roll back, put live again.

Whoever moves an alias in MLflow steers them too: `reconcile` does what `promote` does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mlflow.entities.model_registry import RegisteredModel

from flows import publishing
from flows.audit import RECONCILER, record
from flows.platform import Platform
from flows.platform import status as platform_status
from flows.platform.traffic import Traffic, traffic
from ray_jobs.cluster import joined, services_url
from ray_jobs.errors import LyceumError, PlatformError, RemoteError, UsageError
from ray_jobs.settings import Settings
from tasks import connection
from tasks import register as registry
from tasks.record import Registry

log = logging.getLogger(__name__)

MOST = 1000  # services of one installation
ABSENCE = (PlatformError, RemoteError)  # of something that a version needs, whichever it is


def status(settings: Settings) -> dict[str, Any]:
    """The platform and its services, JSON-able."""
    found, services = platform_status(settings), listed(settings)
    if "metrics_url" in found:
        counted = traffic(found["metrics_url"])
        for row in services:
            told = counted.get(row["service"], Traffic()).as_dict()
            row.update(told if row["live"] else dict.fromkeys(told))
    return {**found, "services": services}


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Every registered service with its champion, and the version that answers now."""
    mlflow = Registry.at(settings)
    found = []
    for model in _models(mlflow):
        champion = registry.find(mlflow.client, model.name, registry.CHAMPION)
        versions = mlflow.client.search_model_versions(f"name = '{model.name}'")
        live = publishing.answering(settings, model.name)
        found.append(
            {
                "service": model.name,
                "versions": len(versions),
                "champion": champion.version if champion else None,
                "figure": _figure(champion) if champion else None,
                "live": live,
                "erased": bool(champion and registry.ERASED in champion.tags),
                "endpoint": f"{services_url(settings)}/{model.name}" if live else None,
            }
        )
    return found


def promote(settings: Settings, service: str, version: int) -> str:
    """Put a version live where Ray lasts, then make it champion; says what it did.

    Raises UsageError when there is none that may serve, ServiceError when it cannot be
    served: the champion then stays who it was, and stays live.
    """
    with record(settings, "promote", service, version=version):
        mlflow = Registry.at(settings)
        with connection.answering(mlflow.uri):
            _known(mlflow, service)
            with publishing.alone(settings, service, f"promotion of version {version}"):
                return _promoted(settings, mlflow, service, version)


def rollback(settings: Settings, service: str) -> str:
    """Promote the champion before this one; doing so twice is back where it began.

    Raises UsageError when there was none before.
    """
    with record(settings, "rollback", service) as details:
        mlflow = Registry.at(settings)
        with connection.answering(mlflow.uri):
            _known(mlflow, service)
            with publishing.alone(settings, service, "rollback"):
                before = registry.find(mlflow.client, service, registry.PREVIOUS)
                if before is None:
                    raise UsageError(
                        f"service {service!r} had no champion before this one; choose a version "
                        f"with lyceum promote {service} VERSION"
                    )
                details["version"] = before.version
                return _promoted(settings, mlflow, service, before.version)


def reconcile(settings: Settings, service: str) -> str:
    """Put the champion live that somebody crowned in MLflow, or that another one answers for.

    Says what it did. Who is crowned and refused has a tag `refused` that says why, and who
    was live is champion again. A champion that was crowned without going live is left to wait.
    Raises the error it is refused with; PlatformError or RemoteError where something
    does not answer, and then nothing is judged.
    """
    mlflow = Registry.at(settings)
    with (
        publishing.alone(settings, service, "the reconciler"),
        connection.answering(mlflow.uri),
    ):
        # Whoever had the lock may have seen to it.
        crowned = registry.find(mlflow.client, service, registry.CHAMPION)
        known = registry.seen_to(mlflow.client, service)
        if crowned is None:
            return f"{service}: nothing to do any more"
        if known is not None and known.version == crowned.version:
            return _mended(settings, mlflow, crowned)
        about = {"version": crowned.version, "lineage": crowned.lineage}
        with record(settings, "reconcile", service, who=RECONCILER, tried=ABSENCE, **about):
            return _followed(settings, mlflow, crowned)


def republish(settings: Settings, platform: Platform) -> Iterator[str]:
    """Put every champion live that a fresh platform does not serve yet; a line for each."""
    here = replace(
        settings,
        ray_address=platform.ray_address,
        mlflow_tracking_uri=platform.mlflow_tracking_uri,
        http_port=platform.ports.http,
    )
    rows = listed(here)
    waiting = [r["service"] for r in rows if r["champion"] and r["live"] != str(r["champion"])]
    if not waiting:
        return
    mlflow = Registry.at(here)
    with joined(here) as cluster:
        for name in waiting:
            try:
                with publishing.alone(here, name, "start of the platform"):
                    release = publishing.release_of(mlflow, name, registry.CHAMPION)
                    where = publishing.publish(here, cluster, release, None)
                    registry.went_live(mlflow.client, name, int(release.version))
            except LyceumError as error:
                # One broken service must not keep the others away.
                yield f"    service {name} is not live: {error}"
            else:
                yield f"    service {name}, version {release.version}{where}"


def _promoted(settings: Settings, mlflow: Registry, service: str, version: int) -> str:
    before = _before(settings, mlflow, service, version)
    where = publishing.serve(settings, mlflow, service, version, before)
    registry.crown(mlflow.client, service, version)
    if settings.ray_address:
        registry.went_live(mlflow.client, service, version)
    return f"{service}: version {version} is champion{where}"


def _followed(settings: Settings, mlflow: Registry, crowned: registry.Version) -> str:
    service, client = crowned.service, mlflow.client
    before = _before(settings, mlflow, service, crowned.version)
    try:
        where = publishing.serve(settings, mlflow, service, crowned.version, None)
    except ABSENCE:
        raise  # of which no version is guilty
    except LyceumError as error:
        registry.blame(client, crowned, str(error))  # first, since somebody waits for the word
        publishing.put_back(settings, mlflow, crowned, before)
        registry.refuse(client, crowned, before)
        raise
    registry.follow(client, crowned, before)
    if settings.ray_address:
        registry.went_live(client, service, crowned.version)
    return f"{service}: version {crowned.version} was crowned by hand{where}"


def _mended(settings: Settings, mlflow: Registry, champion: registry.Version) -> str:
    """Put a champion live again that another version answers for, which nobody lived to crown.

    One that never went live waits, and what did before it answers.
    """
    service, client = champion.service, mlflow.client
    answers, live = publishing.answering(settings, service), registry.live(client, service)
    if live is None or answers in {None, live, str(champion.version)}:
        return f"{service}: nothing to do any more"
    about = {"version": champion.version, "lineage": champion.lineage, "answered": answers}
    with record(settings, "reconcile", service, who=RECONCILER, tried=ABSENCE, **about):
        before = registry.find(client, service, answers)
        where = publishing.serve(settings, mlflow, service, champion.version, before)
        registry.went_live(client, service, champion.version)
    return f"{service}: version {answers} was left halfway; champion is {champion.version}{where}"


def _before(
    settings: Settings, mlflow: Registry, service: str, version: int
) -> registry.Version | None:
    """To whom the way back from a version leads: who answers now, else who was seen to last.

    Whoever has the alias may have been crowned by hand, and not have been tried yet.
    """
    client, answers = mlflow.client, publishing.answering(settings, service)
    live = registry.find(client, service, answers) if answers else None
    known = registry.seen_to(client, service) or registry.find(client, service, registry.CHAMPION)
    back = [v for v in (live, known) if v is not None and v.version != version]
    return back[0] if back else None


def _figure(version: registry.Version) -> str | None:
    name = version.tags.get(registry.HEADLINE, "")
    return f"{name} {version.tags[name]}" if name in version.tags else None


def _models(mlflow: Registry) -> list[RegisteredModel]:
    """The registered models that are services of ours; a registry may hold others."""
    models = mlflow.client.search_registered_models(max_results=MOST)
    return [model for model in models if "family" in model.tags]


def _known(mlflow: Registry, service: str) -> None:
    names = [model.name for model in _models(mlflow)]
    if service not in names:
        there = f"there are {', '.join(names)}" if names else "none is registered yet"
        raise UsageError(f"no service {service!r}; {there}")
