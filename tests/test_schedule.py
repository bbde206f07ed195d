"""Schedules: what a worker elsewhere will be told, in which time zone, and what is refused."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL

from flows import schedule as scheduling
from flows.pipeline import pipeline
from flows.schedule import local_zone, schedule
from ray_jobs.errors import PlatformError, UsageError
from ray_jobs.settings import Settings
from tests.platform_parts import up_here

MADE = UUID(int=7)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunnerDeployment, str]]:
    """What Prefect was given, and at which address."""
    given: list[tuple[RunnerDeployment, str]] = []

    def apply(deployment: RunnerDeployment) -> UUID:
        given.append((deployment, str(PREFECT_API_URL.value())))
        return MADE

    monkeypatch.setattr(RunnerDeployment, "apply", apply)
    return given


def test_a_schedule_tells_the_platforms_worker_everything_it_needs(
    settings: Settings,
    deployed: list[tuple[RunnerDeployment, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    platform = up_here(settings)
    made = schedule(
        settings, "knowledge", "0 3 * * *", service="algebra", data="logs", overrides={"seed": "1"}
    )
    ((deployment, api),) = deployed
    assert api == platform.prefect_api_url
    assert deployment.parameters == {
        "recipe": "knowledge",
        "service": "algebra",
        "data": str(tmp_path / "logs"),
        "settings": {"seed": "1"},
    }
    pipeline.validate_parameters(deployment.parameters)
    (cron,) = [each.schedule for each in deployment.schedules or []]
    assert isinstance(cron, CronSchedule)
    assert (cron.cron, cron.timezone) == ("0 3 * * *", "Asia/Kolkata")
    assert deployment.work_pool_name == "lyceum"
    assert "/" not in str(deployment.entrypoint), "a worker has the module, not this folder"
    assert load_flow_from_entrypoint(str(deployment.entrypoint)).name == pipeline.name
    assert deployment.concurrency_limit == 1, "one run at a time"
    assert deployment.concurrency_options is not None
    assert deployment.concurrency_options.collision_strategy.value == "CANCEL_NEW"
    assert (made.name, made.timezone) == ("lyceum/algebra", "Asia/Kolkata")
    assert made.url == f"{platform.prefect_ui}/deployments/deployment/{MADE}"


@pytest.mark.parametrize(
    ("data", "told"),
    [("s3://bucket/logs", "s3://bucket/logs"), ("~/logs", f"{Path.home()}/logs"), (None, None)],
)
def test_data_is_named_so_that_a_worker_in_another_folder_finds_it(
    settings: Settings,
    deployed: list[tuple[RunnerDeployment, str]],
    data: str | None,
    told: str | None,
) -> None:
    up_here(settings)
    made = schedule(settings, "knowledge-smoke", "@daily", data=data)
    assert deployed[0][0].parameters["data"] == told
    assert made.name == "lyceum/knowledge-smoke"


@pytest.mark.parametrize("cron", ["every night", "61 * * * *", "0 3 * *", ""])
def test_what_is_no_cron_expression_is_refused_with_one_that_is(
    settings: Settings, deployed: list[tuple[RunnerDeployment, str]], cron: str
) -> None:
    up_here(settings)
    with pytest.raises(UsageError) as refused:
        schedule(settings, "knowledge", cron)
    assert str(refused.value) == (
        f"{cron!r} is no cron expression; expected five fields, such as '0 3 * * *' for every "
        "night at three"
    )
    assert deployed == []


def test_half_a_platform_is_none_to_schedule_on(
    settings: Settings, deployed: list[tuple[RunnerDeployment, str]]
) -> None:
    up_here(settings, dead=("worker",))
    with pytest.raises(PlatformError, match=r"no platform runs for .*; start it with `lyceum up`"):
        schedule(settings, "knowledge", "0 3 * * *")
    assert deployed == []


@pytest.mark.parametrize(
    ("variable", "link", "zone"),
    [
        ("Europe/Berlin", "Asia/Kolkata", "Europe/Berlin"),
        (":Europe/Berlin", None, "Europe/Berlin"),
        ("", "Asia/Kolkata", "Asia/Kolkata"),
        ("", None, "UTC"),
        ("CET-1CEST", "Asia/Kolkata", "UTC"),
        ("../../etc", None, "UTC"),
    ],
)
def test_the_zone_of_a_schedule_is_this_machines_or_utc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, link: str | None, zone: str
) -> None:
    localtime = tmp_path / "localtime"
    if link:
        localtime.symlink_to(tmp_path / "zoneinfo" / link)
    else:
        localtime.write_bytes(b"a copy that tells no name")
    monkeypatch.setattr(scheduling, "Path", lambda _: localtime)
    monkeypatch.setenv("TZ", variable)
    assert local_zone() == zone
    assert ZoneInfo(local_zone())
