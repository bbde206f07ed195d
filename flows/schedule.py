"""Runs on a schedule: a Prefect deployment of the pipeline on the platform's work pool.

The flow is named by its module path, so a worker runs it from anywhere; one
run of a schedule at a time, a run that is due meanwhile is skipped.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flows.platform.components import POOL
from flows.platform.record import Platform, running
from ray_jobs import store
from ray_jobs.errors import PlatformError, UsageError
from ray_jobs.settings import Settings

if TYPE_CHECKING:
    from prefect import Flow

PIPELINE = "flows.pipeline:pipeline"


@dataclass(frozen=True)
class Schedule:
    """A deployment that was made."""

    deployment_id: str
    name: str  # flow/deployment, as Prefect's command line wants it
    url: str
    timezone: str  # the one the cron expression is read in


def schedule(
    settings: Settings,
    recipe: str,
    cron: str,
    *,
    service: str | None = None,
    data: str | None = None,
    overrides: Mapping[str, str] | None = None,
    entrypoint: str = PIPELINE,
) -> Schedule:
    """Have the platform run a recipe whenever the cron expression says, in local time.

    Scheduling a service again replaces its schedule. Raises UsageError for a
    cron expression that is none, PlatformError when no platform runs.
    """
    platform = _platform(settings)
    parameters = {
        "recipe": recipe,
        "service": service,
        "data": _anywhere(data),
        "settings": dict(overrides or {}),
    }
    name = service or recipe
    _check(cron)
    flow = _flow(entrypoint)
    identifier = _deploy(platform, flow, name=name, cron=cron, parameters=parameters)
    return Schedule(
        deployment_id=identifier,
        name=f"{flow.name}/{name}",
        url=f"{platform.prefect_ui}/deployments/deployment/{identifier}",
        timezone=local_zone(),
    )


def unschedule(settings: Settings, name: str, *, entrypoint: str = PIPELINE) -> None:
    """Remove the schedule of a service or recipe; raises UsageError when there is none."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    platform, flow = _platform(settings), _flow(entrypoint)
    with _on(platform), get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(f"{flow.name}/{name}")
        except ObjectNotFound as error:
            raise UsageError(f"no schedule {name!r} on {platform.prefect_ui}") from error
        client.delete_deployment(found.id)


def _deploy(
    platform: Platform, flow: Flow[..., Any], *, name: str, cron: str, parameters: dict[str, Any]
) -> str:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    with _on(platform):
        deployment = RunnerDeployment.from_flow(
            flow,
            name=name,
            schedules=[Cron(cron, timezone=local_zone())],
            parameters=parameters,
            work_pool_name=POOL,
            entrypoint_type=EntrypointType.MODULE_PATH,
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy="CANCEL_NEW"),
        )
        return str(deployment.apply())


def _on(platform: Platform) -> Any:
    """Prefect talks to this platform within the block, whatever the environment says."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    return temporary_settings({PREFECT_API_URL: platform.prefect_api_url})


def _platform(settings: Settings) -> Platform:
    platform = running(settings)
    if platform is None:
        raise PlatformError(
            f"no platform runs for {settings.home}, and schedules need one; start it with "
            "`lyceum up`"
        )
    return platform


def _flow(entrypoint: str) -> Flow[..., Any]:
    module, _, name = entrypoint.partition(":")
    flow: Flow[..., Any] = getattr(importlib.import_module(module), name)
    return flow


def _check(cron: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise UsageError(
            f"{cron!r} is no cron expression; expected five fields, such as '0 3 * * *' for "
            "every night at three"
        ) from error


def _anywhere(data: str | None) -> str | None:
    """A path that a worker in another folder finds too."""
    if data is None or not store.is_local(data):
        return data
    return str(Path(data).expanduser().absolute())


def local_zone() -> str:
    """The name of this machine's time zone, UTC when it does not tell."""
    name = os.environ.get("TZ", "").removeprefix(":")
    link = Path("/etc/localtime")
    if not name and link.is_symlink():
        name = str(link.resolve()).partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name or "UTC").key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return "UTC"
