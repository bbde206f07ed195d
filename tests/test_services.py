"""What a person steers: who is champion, and the way back, against a real registry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.tracking import MlflowClient

from flows import services
from flows.score import asked, chosen
from ray_jobs.errors import PlatformError, StoreError, UsageError
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tasks.register import PREVIOUS
from tests.registry_parts import connected, crowned, registered

# MLflow's own, not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def client(settings: Settings) -> MlflowClient:
    return connected(settings)


def test_without_a_platform_the_alias_moves_and_nobody_claims_that_it_is_live(
    client: MlflowClient, settings: Settings
) -> None:
    registered(client, settings, "algebra", 2)
    said = services.promote(settings, "algebra", 1)
    assert "version 1 is champion" in said
    assert "not live" in said
    assert "http" not in said
    assert (crowned(client, "algebra"), crowned(client, "algebra", PREVIOUS)) == (1, None)


def test_rolling_back_twice_is_back_where_it_began(
    client: MlflowClient, settings: Settings
) -> None:
    registered(client, settings, "geometry", 3)
    for version in (1, 3):
        services.promote(settings, "geometry", version)
    services.rollback(settings, "geometry")
    assert (crowned(client, "geometry"), crowned(client, "geometry", PREVIOUS)) == (1, 3)
    services.rollback(settings, "geometry")
    assert (crowned(client, "geometry"), crowned(client, "geometry", PREVIOUS)) == (3, 1)


@pytest.mark.parametrize("step", ["search_registered_models", "set_registered_model_alias"])
@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_an_mlflow_that_breaks_at_the_first_step_or_the_last_is_told_as_such(
    client: MlflowClient, settings: Settings, step: str, command: str
) -> None:
    name, more = f"{command}-{step}", [1] if command == "promote" else []
    registered(client, settings, name, 2)
    for version in (1, 2):
        services.promote(settings, name, version)

    def breaks(*_: object, **__: object) -> None:
        raise MlflowException("internal error", INTERNAL_ERROR)

    told = "could not do its part: internal error; see to it, then run the same command again"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, step, breaks)
        with pytest.raises(PlatformError, match=told):
            getattr(services, command)(settings, name, *more)


def test_promoting_the_champion_changes_nothing(client: MlflowClient, settings: Settings) -> None:
    registered(client, settings, "logic", 2)
    for version in (1, 2, 2):
        services.promote(settings, "logic", version)
    assert (crowned(client, "logic"), crowned(client, "logic", PREVIOUS)) == (2, 1)


def test_a_service_that_is_not_there_is_told_with_those_that_are(
    client: MlflowClient, settings: Settings, tmp_path: Path
) -> None:
    registered(client, settings, "statistics", 1)
    told = r"no service 'stats'; there are .*statistics"
    with pytest.raises(UsageError, match=told):
        services.promote(settings, "stats", 1)
    with pytest.raises(UsageError, match=told):
        services.rollback(settings, "stats")
    empty = replace(settings, home=tmp_path)
    connected(empty)
    with pytest.raises(UsageError, match="none is registered yet"):
        services.promote(empty, "stats", 1)
    assert services.listed(empty) == []


def test_a_version_that_is_not_there_is_told_with_those_that_are(
    client: MlflowClient, settings: Settings
) -> None:
    registered(client, settings, "calculus", 2)
    with pytest.raises(UsageError, match="no version '9'; there are 1, 2"):
        services.promote(settings, "calculus", 9)
    assert crowned(client, "calculus") is None


def test_where_there_was_no_champion_before_the_way_on_is_named(
    client: MlflowClient, settings: Settings
) -> None:
    registered(client, settings, "topology", 1)
    with pytest.raises(UsageError, match="lyceum promote topology VERSION"):
        services.rollback(settings, "topology")
    services.promote(settings, "topology", 1)
    with pytest.raises(UsageError, match="no champion before"):
        services.rollback(settings, "topology")


def test_what_cannot_be_served_does_not_become_champion(
    client: MlflowClient, settings: Settings
) -> None:
    registered(client, settings, "half", 1, tagged=False)
    with pytest.raises(UsageError, match="only half registered"):
        services.promote(settings, "half", 1)
    registered(client, settings, "lost", 1)
    Path(f"{settings.home}/releases/lost-1.json").unlink()
    with pytest.raises(StoreError, match=r"nothing at .*lost-1\.json"):
        services.promote(settings, "lost", 1)
    assert (crowned(client, "half"), crowned(client, "lost")) == (None, None)


def test_what_may_not_serve_by_its_protocol_does_not_become_champion(
    client: MlflowClient, settings: Settings
) -> None:
    registered(client, settings, "leaky", 1, barred="protocol K1 leaks")
    with pytest.raises(UsageError, match="version 1 of leaky may not serve: protocol K1 leaks"):
        services.promote(settings, "leaky", 1)
    assert crowned(client, "leaky") is None
    with pytest.raises(UsageError, match="may not serve"):
        chosen(settings, "leaky", 1)


def test_nothing_is_scored_under_a_protocol_that_leaks() -> None:
    release = Release("algebra", "knowledge", "l", "/model", "d", [], {}, version="3")
    assert asked(release, "logs", {"columns.protocol": "N"}).service == "algebra"
    with pytest.raises(UsageError, match="nothing is scored so: protocol K1 leaks"):
        asked(release, "logs", {"columns.protocol": "K1"})


def test_the_list_tells_champions_and_leaves_out_what_is_not_ours(
    client: MlflowClient, settings: Settings
) -> None:
    registered(client, settings, "arithmetic", 2)
    services.promote(settings, "arithmetic", 2)
    client.create_registered_model("somebody else's")
    rows = {row["service"]: row for row in services.listed(settings)}
    assert "somebody else's" not in rows
    assert rows["arithmetic"] == {
        "service": "arithmetic",
        "versions": 2,
        "champion": 2,
        "figure": "auc 0.82",
        "live": None,
        "erased": False,
        "endpoint": None,
    }
    assert services.status(settings)["services"] == list(rows.values())
