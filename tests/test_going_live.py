"""What is crowned answers, and what answers is crowned: services on a Ray that lasts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient

from flows import services
from ray_jobs.errors import ServiceError
from ray_jobs.recipe import Resources
from ray_jobs.settings import Settings
from tasks import register
from tasks.register import PREVIOUS
from tests.live_parts import Serve
from tests.platform_parts import up_here
from tests.registry_parts import connected, crowned, registered, release_file

# MLflow's own, not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture
def settings(lasting: Settings) -> Settings:
    return lasting


@pytest.fixture
def client(settings: Settings) -> MlflowClient:
    return connected(settings)


def row(settings: Settings, service: str) -> tuple[int | None, str | None, str | None]:
    """Champion, live version and address of a service, as they are listed."""
    (found,) = [r for r in services.listed(settings) if r["service"] == service]
    return found["champion"], found["live"], found["endpoint"]


def test_a_version_answers_before_it_is_crowned(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    registered(client, settings, "algebra", 2)
    champions: list[int | None] = []
    serve.on_publish = lambda: champions.append(crowned(client, "algebra"))
    for version in (1, 2):
        said = services.promote(settings, "algebra", version)
        assert said == f"algebra: version {version} is champion, live at {serve.url}/algebra"
        assert row(settings, "algebra") == (version, str(version), f"{serve.url}/algebra")
    assert champions == [None, 1]


@pytest.mark.parametrize("champion", [1, None])
def test_a_version_that_cannot_be_served_leaves_champion_and_service_as_they_were(
    client: MlflowClient, settings: Settings, serve: Serve, champion: int | None
) -> None:
    registered(client, settings, "algebra", 2)
    if champion:
        services.promote(settings, "algebra", champion)
    before = row(settings, "algebra")
    serve.broken.add(("algebra", "2"))
    with pytest.raises(ServiceError, match="could not start: no weights"):
        services.promote(settings, "algebra", 2)
    assert row(settings, "algebra") == before
    assert crowned(client, "algebra", PREVIOUS) is None


def test_rolling_back_swaps_what_answers_and_does_not_when_the_old_version_is_broken(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    registered(client, settings, "algebra", 2)
    for version in (1, 2):
        services.promote(settings, "algebra", version)
    assert services.rollback(settings, "algebra").startswith("algebra: version 1 is champion, live")
    assert row(settings, "algebra")[:2] == (1, "1")
    serve.broken.add(("algebra", "2"))
    with pytest.raises(ServiceError):
        services.rollback(settings, "algebra")
    assert row(settings, "algebra")[:2] == (1, "1")
    assert crowned(client, "algebra", PREVIOUS) == 2


def test_a_service_is_served_with_the_resources_it_was_released_with(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    registered(client, settings, "algebra", 1, resources={"replicas": 3})
    services.promote(settings, "algebra", 1)
    assert serve.resources["algebra"] == Resources(replicas=3)


def test_who_answers_is_told_apart_from_who_should(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    registered(client, settings, "algebra", 2)
    services.promote(settings, "algebra", 1)
    services.promote(replace(settings, ray_address=""), "algebra", 2)
    assert row(settings, "algebra") == (2, "1", f"{serve.url}/algebra")
    bare = replace(settings, ray_address="")
    assert row(bare, "algebra") == (2, None, None), "who answers there is not this installation's"
    serve.live.clear()
    assert row(settings, "algebra") == (2, None, None)
    assert services.status(settings)["services"] == services.listed(settings)


def waiting(client: MlflowClient, settings: Settings, *names: str) -> None:
    """Services whose version 2 is champion, although nothing is live."""
    for name in names:
        registered(client, settings, name, 2)
        services.promote(replace(settings, ray_address=""), name, 2)


def republished(settings: Settings, serve: Serve) -> list[str]:
    """What a platform that has just come up says, to settings that know nothing of it."""
    platform = up_here(settings, http_port=serve.port)
    ignorant = Settings(home=settings.home / "nothing", key_file=settings.key_file)
    return list(services.republish(ignorant, platform))


def test_a_fresh_platform_serves_every_champion_and_no_version_that_nobody_crowned(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    waiting(client, settings, "algebra", "geometry")
    registered(client, settings, "logic", 1)
    assert republished(settings, serve) == [
        f"    service {name}, version 2, live at {serve.url}/{name}"
        for name in ("algebra", "geometry")
    ]
    assert serve.versions() == {"algebra": "2", "geometry": "2"}
    assert register.live(client, "geometry") == "2"


def test_a_platform_that_serves_every_champion_is_left_alone(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    waiting(client, settings, "algebra", "geometry")
    republished(settings, serve)
    serve.broken = {("algebra", "2"), ("geometry", "2")}  # as anything would be that starts again
    assert republished(settings, serve) == []
    assert serve.joined_ever == 1
    services.promote(replace(settings, ray_address=""), "algebra", 1)
    (said,) = republished(settings, serve)
    assert said == f"    service algebra, version 1, live at {serve.url}/algebra"


def test_one_broken_service_keeps_no_other_away(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    waiting(client, settings, "algebra", "broken", "lost", "zoology")
    release_file(settings, "lost", 2).unlink()
    serve.broken.add(("broken", "2"))
    said = republished(settings, serve)
    assert serve.versions() == {"algebra": "2", "zoology": "2"}
    assert said[1:3] == [
        "    service broken is not live: service broken could not start: no weights",
        f"    service lost is not live: nothing at {release_file(settings, 'lost', 2)}",
    ]
