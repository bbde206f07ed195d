"""The reconciler: what is crowned by hand goes live or is told why not, and nothing twice."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils.proto_json_utils import message_to_json

from flows import publishing, reconcile, services
from flows.audit import trail
from flows.platform import record
from flows.platform.locks import held, lock
from flows.reconcile import (
    AGAIN_S,
    ANSWERS_S,
    ASTRAY_S,
    BROKEN_S,
    Reconciler,
    Settled,
    settle,
    settle_aside,
)
from ray_jobs import settings as installation
from ray_jobs.errors import AwayError, PlatformError, ServiceError
from ray_jobs.serving import deploy
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tasks import register
from tasks.record import Registry
from tasks.register import CHAMPION, PREVIOUS, REFUSED
from tests.live_parts import Serve
from tests.registry_parts import connected, crowned, registered, release_file
from tests.remote_parts import Clock

# MLflow's own, not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

SERVER = "http://mlflow"


@pytest.fixture
def settings(lasting: Settings) -> Settings:
    return lasting


@pytest.fixture
def client(settings: Settings) -> MlflowClient:
    """A registry with three versions of a service, of which the first is live."""
    client = connected(settings)
    registered(client, settings, "algebra", 3)
    services.promote(settings, "algebra", 1)
    return client


@dataclass
class Desk:
    """A reconciler that asks a real registry as if over HTTP, and settles in this process."""

    settings: Settings
    client: MlflowClient
    away: bool = False
    serving: bool = True
    page: int = 1000  # the most services of one answer
    settled: list[str] = field(default_factory=list)
    asked: int = 0
    greeted: int = 0  # times that a service was asked who it is

    def __post_init__(self) -> None:
        http = httpx.Client(transport=httpx.MockTransport(self.answer), auth=("lyceum", "secret"))
        here = replace(self.settings, mlflow_tracking_uri=SERVER)
        self.reconciler = Reconciler(here, http, self.settle)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/-/routes":
            if not self.serving:
                raise httpx.ConnectError("connection refused")
            return httpx.Response(503)
        if request.url.path.endswith("/healthz"):
            assert "authorization" not in request.headers, "MLflow's password is for MLflow"
            self.greeted += 1
            return httpx.get(request.url, trust_env=False)
        self.asked += 1
        if self.away:
            raise httpx.ConnectError("connection refused")
        assert request.url.path == "/api/2.0/mlflow/registered-models/search"
        words = request.url.params
        models = self.client.search_registered_models(
            max_results=min(self.page, int(words["max_results"])),
            page_token=words.get("page_token"),
        )
        told = [json.loads(message_to_json(m.to_proto())) for m in models]  # type: ignore[no-untyped-call]
        more = {"next_page_token": models.token.decode()} if models.token else {}
        return httpx.Response(200, json={"registered_models": told, **more} if told else {})

    def settle(self, _: Settings, service: str) -> Settled:
        self.settled.append(service)
        return settle(self.settings, service)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.reconciler.look()


@pytest.fixture
def desk(settings: Settings, client: MlflowClient) -> Desk:
    return Desk(settings, client)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reconcile, "time", clock)
    return clock


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="flows.reconcile")
    return caplog


def crown(client: MlflowClient, version: int, service: str = "algebra") -> None:
    """As a person does in MLflow."""
    client.set_registered_model_alias(service, CHAMPION, str(version))


def aliases(client: MlflowClient, service: str = "algebra") -> tuple[int | None, int | None]:
    return crowned(client, service), crowned(client, service, PREVIOUS)


def tags(client: MlflowClient, version: int) -> dict[str, str]:
    return dict(client.get_model_version("algebra", str(version)).tags)


def lines(settings: Settings) -> list[tuple[Any, ...]]:
    """What the reconciler did, by the audit trail."""
    told = map(json.loads, trail(settings).read_text().splitlines())
    return [
        (x["act"], x["subject"], x["version"], x["outcome"])
        for x in told
        if x["who"] == "reconciler"
    ]


def words(log: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in log.records if r.name == "flows.reconcile"]


def test_a_champion_crowned_by_hand_goes_live_and_the_way_back_is_to_who_was_live_before(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    for version, before in ((2, 1), (3, 2), (1, 3)):
        crown(client, version)
        desk.look()
        assert serve.versions() == {"algebra": str(version)}
        assert aliases(client) == (version, before)
        assert register.live(client, "algebra") == str(version)
    assert lines(settings) == [("reconcile", "algebra", v, "done") for v in (2, 3, 1)]
    services.rollback(settings, "algebra")
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "3"}, (3, 1))
    assert len(desk.settled) == 3


def half_registered(settings: Settings, client: MlflowClient, _: Serve) -> None:
    client.delete_model_version_tag("algebra", "2", "release")


def barred(settings: Settings, client: MlflowClient, _: Serve) -> None:
    path = release_file(settings, "algebra", 2)
    path.write_text(json.dumps({**json.loads(path.read_text()), "barred": "it leaks"}))


def lost(settings: Settings, client: MlflowClient, _: Serve) -> None:
    release_file(settings, "algebra", 2).unlink()


def torn(settings: Settings, client: MlflowClient, _: Serve) -> None:
    path = release_file(settings, "algebra", 2)
    path.write_text(path.read_text()[:100])


def of_another_lyceum(settings: Settings, client: MlflowClient, _: Serve) -> None:
    release_file(settings, "algebra", 2).write_text('{"service": "algebra", "colour": "red"}')


def with_odd_resources(settings: Settings, client: MlflowClient, _: Serve) -> None:
    path = release_file(settings, "algebra", 2)
    path.write_text(json.dumps({**json.loads(path.read_text()), "resources": {"moons": 3}}))


def refused_by_its_replica(settings: Settings, client: MlflowClient, serve: Serve) -> None:
    serve.broken.add(("algebra", "2"))


FLAWS: list[tuple[Callable[[Settings, MlflowClient, Serve], None], str]] = [
    (half_registered, "only half registered"),
    (barred, "may not serve: it leaks"),
    (lost, "nothing at "),
    (torn, "is not JSON"),
    (of_another_lyceum, "no release of this Lyceum"),
    (with_odd_resources, "no release of this Lyceum"),
    (refused_by_its_replica, "could not start: no weights"),
]


@pytest.mark.parametrize(("flaw", "reason"), FLAWS)
def test_what_is_refused_never_serves_says_why_and_gives_the_alias_back(
    flaw: Callable[[Settings, MlflowClient, Serve], None],
    reason: str,
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    log: pytest.LogCaptureFixture,
) -> None:
    flaw(settings, client, serve)
    crown(client, 2)
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "1"}, (1, None))
    assert reason in tags(client, 2)[REFUSED]
    assert [reason in line for line in words(log)] == [True]
    assert lines(settings) == [("reconcile", "algebra", 2, "refused")]
    assert reason in json.loads(trail(settings).read_text().splitlines()[-1])["reason"]
    desk.look(2)
    assert len(desk.settled) == 1


def test_who_was_refused_and_is_mended_may_be_crowned_again_and_nothing_holds_it_against_it(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    serve.broken.add(("algebra", "2"))
    for _ in range(2):
        crown(client, 2)
        desk.look()
        assert (aliases(client), REFUSED in tags(client, 2)) == ((1, None), True)
    serve.broken.clear()
    crown(client, 2)
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (2, 1))
    assert REFUSED not in tags(client, 2)
    serve.broken.add(("algebra", "3"))
    crown(client, 3)
    desk.look()
    serve.broken.clear()
    services.promote(settings, "algebra", 3)
    assert REFUSED not in tags(client, 3)


def test_a_reason_of_any_length_fits_its_tag(
    desk: Desk, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "serve", lambda *_: _raise(ServiceError("x" * 99_999)))
    crown(client, 2)
    desk.look()
    assert set(tags(client, 2)[REFUSED]) == {"x"}
    assert aliases(client) == (1, None)


def _raise(error: BaseException) -> str:
    raise error


def test_the_first_champion_of_a_service_may_be_crowned_by_hand_and_is_tried_once(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    registered(client, settings, "geometry", 2)
    serve.broken.add(("geometry", "1"))
    crown(client, 1, "geometry")
    desk.look(3)
    assert (desk.settled, serve.versions()) == (["geometry"], {"algebra": "1"})
    assert aliases(client, "geometry") == (1, None), "there is none to give it back to"
    crown(client, 2, "geometry")
    desk.look(2)
    assert (desk.settled, serve.versions()["geometry"]) == (["geometry"] * 2, "2")


def test_what_a_command_did_is_not_done_again(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve, clock: Clock
) -> None:
    services.promote(settings, "algebra", 2)
    services.rollback(settings, "algebra")
    services.promote(replace(settings, ray_address=""), "algebra", 3)
    joined = serve.joined_ever
    look_on(desk, clock)
    assert settle(settings, "algebra").said == "algebra: nothing to do any more"
    assert (desk.settled, serve.joined_ever, lines(settings)) == ([], joined, [])
    assert serve.versions() == {"algebra": "1"}, "what was crowned to serve later waits for it"


def test_who_begins_to_look_later_goes_on_where_another_ended(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    crown(client, 2)
    desk.look()
    serve.broken.add(("algebra", "3"))
    crown(client, 3)
    later = Desk(settings, client)
    later.look()
    assert (later.settled, aliases(client)) == (["algebra"], (2, 1))
    third = Desk(settings, client)
    third.look()
    assert third.settled == []


def test_a_service_of_an_older_lyceum_is_taken_as_it_is(
    desk: Desk, client: MlflowClient, serve: Serve
) -> None:
    client.delete_registered_model_tag("algebra", reconcile.SEEN_TO)
    desk.look(2)
    assert (desk.settled, serve.versions(), aliases(client)) == (
        ["algebra"], {"algebra": "1"}, (1, None),
    )  # fmt: skip


def test_a_change_of_while_the_platform_was_down_has_its_way_back_too(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    serve.live.clear()
    crown(client, 2)
    serve.live["algebra"] = publishing.release_of(Registry.at(settings), "algebra", 2)
    desk.look()  # after `lyceum up` put it live
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (2, 1))
    serve.live.clear()
    serve.broken.add(("algebra", "3"))
    crown(client, 3)
    desk.look()  # after `lyceum up` could not
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (2, 1))


def test_who_is_refused_while_nobody_is_live_leaves_who_was_champion_live(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    serve.live.clear()
    half_registered(settings, client, serve)
    crown(client, 2)
    desk.look()  # after `lyceum up` could not put it live
    assert (serve.versions(), aliases(client)) == ({"algebra": "1"}, (1, None))
    serve.live.clear()
    serve.broken.add(("algebra", "1"))
    crown(client, 2)
    desk.look()
    assert (serve.versions(), aliases(client)) == ({}, (1, None))
    assert "only half registered" in tags(client, 2)[REFUSED], "not why the other is not live"


def test_a_lost_release_does_not_keep_the_service_from_moving_on(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    release_file(settings, "algebra", 1).unlink()
    crown(client, 2)
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (2, 1))
    release_file(settings, "algebra", 2).unlink()
    services.promote(settings, "algebra", 3)
    assert (serve.versions(), aliases(client)) == ({"algebra": "3"}, (3, 2))


def test_a_promotion_goes_back_to_who_was_live_and_not_to_who_was_only_crowned(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    serve.broken.add(("algebra", "3"))
    crown(client, 2)
    with pytest.raises(ServiceError):
        services.promote(settings, "algebra", 3)
    assert serve.versions() == {"algebra": "1"}
    serve.broken.clear()
    services.promote(settings, "algebra", 3)
    assert (serve.versions(), aliases(client)) == ({"algebra": "3"}, (3, 1))
    client.delete_registered_model_alias("algebra", CHAMPION)
    services.promote(settings, "algebra", 2)
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (2, 3))


def test_what_answers_beside_the_registry_is_who_comes_back_and_not_who_was_crowned(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    services.promote(replace(settings, ray_address=""), "algebra", 2)  # live is 1 still
    serve.broken.add(("algebra", "3"))
    crown(client, 3)
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "1"}, (1, 1))


def test_a_version_number_that_was_given_anew_is_not_who_had_it_before(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    client.delete_registered_model("algebra")
    registered(client, settings, "algebra", 1)
    path = release_file(settings, "algebra", 1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "lineage": "anew"}))
    crown(client, 1)
    desk.look()
    assert serve.live["algebra"].lineage == "anew"


def test_a_champion_that_is_removed_leaves_the_service_as_it_is_and_is_told_once(
    desk: Desk, client: MlflowClient, serve: Serve, log: pytest.LogCaptureFixture
) -> None:
    client.delete_registered_model_alias("algebra", CHAMPION)
    desk.look(3)
    assert (desk.settled, serve.versions()) == ([], {"algebra": "1"})
    assert words(log) == ["algebra has no champion any more; what answers stays as it is"]
    crown(client, 2)
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (2, 1))
    client.delete_registered_model_alias("algebra", CHAMPION)
    desk.look(2)
    assert len(words(log)) == 3


def test_mlflow_that_is_away_is_told_once_and_asked_until_it_is_back(
    desk: Desk, client: MlflowClient, serve: Serve, log: pytest.LogCaptureFixture
) -> None:
    crown(client, 2)
    desk.away = True
    desk.look(3)
    assert (desk.asked, len(words(log)), serve.versions()) == (3, 1, {"algebra": "1"})
    assert "MLflow does not answer as it should at http://mlflow (connection" in words(log)[0]
    desk.away = False
    desk.look()
    assert (words(log)[1], serve.versions()) == ("MLflow answers again", {"algebra": "2"})


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401),
        httpx.Response(500),
        httpx.Response(200, text="<h1>hello</h1>"),
        httpx.Response(200, json=[1]),
    ],
)
def test_a_server_that_is_not_mlflow_ends_nothing(
    settings: Settings, answer: httpx.Response, log: pytest.LogCaptureFixture
) -> None:
    http = httpx.Client(transport=httpx.MockTransport(lambda _: answer))
    here = replace(settings, mlflow_tracking_uri=SERVER)
    assert not Reconciler(here, http, settle).look()
    assert len(words(log)) == 1


@pytest.mark.parametrize("absence", [PlatformError("no Ray answers"), AwayError("no bucket")])
def test_what_is_away_is_nobodys_fault_is_told_once_and_tried_again_after_a_while(
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    absence: Exception,
) -> None:
    crown(client, 2)
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "serve", lambda *_: _raise(absence))
        desk.look(3)
        clock.now += AGAIN_S + 1
        desk.look(3)
    assert (len(desk.settled), words(log)) == (2, [f"algebra: {absence}"])
    assert (aliases(client), REFUSED in tags(client, 2)) == ((2, None), False)
    assert lines(settings) == [], "what is tried again and again is told when it has ended"
    clock.now += AGAIN_S + 1
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (2, 1))
    assert lines(settings) == [("reconcile", "algebra", 2, "done")]


def test_while_ray_is_away_it_is_asked_for_and_nothing_is_begun(
    desk: Desk, client: MlflowClient, serve: Serve, log: pytest.LogCaptureFixture
) -> None:
    desk.serving = False
    desk.look(2)
    assert words(log) == [], "nobody needs it"
    crown(client, 2)
    desk.look(3)
    assert (desk.settled, len(words(log)), serve.versions()) == ([], 1, {"algebra": "1"})
    assert f"Ray Serve does not answer at {serve.url} (connection refused)" in words(log)[0]
    desk.serving = True
    desk.look()
    assert (words(log)[1], serve.versions()) == ("Ray Serve answers again", {"algebra": "2"})


def test_nothing_goes_live_that_cannot_be_written_down(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve, clock: Clock
) -> None:
    trail(settings).unlink()
    trail(settings).mkdir()
    crown(client, 2)
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "1"}, (2, None))
    trail(settings).rmdir()
    clock.now += AGAIN_S + 1
    desk.look()
    assert (serve.versions(), lines(settings)) == (
        {"algebra": "2"}, [("reconcile", "algebra", 2, "done")],
    )  # fmt: skip


def test_another_choice_does_not_wait_for_what_rests(
    desk: Desk, client: MlflowClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    crown(client, 2)
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "serve", lambda *_: _raise(PlatformError("no Ray answers")))
        desk.look()
    crown(client, 3)
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "3"}, (3, 1))


def test_while_somebody_changes_what_is_live_nothing_is_done_and_then_it_is_looked_at_again(
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    log: pytest.LogCaptureFixture,
) -> None:
    crown(client, 2)
    with held(lock(settings, "algebra", "live"), "a run", print):
        desk.look(3)
        assert (desk.settled, len(words(log))) == ([], 1)
        crown(client, 1)
    desk.look()
    assert (desk.settled, serve.versions()) == ([], {"algebra": "1"})
    crown(client, 3)
    desk.look()
    assert serve.versions() == {"algebra": "3"}


def test_who_had_to_wait_for_the_lock_looks_again_before_acting(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    crown(client, 2)
    said: list[str] = []
    waiting = threading.Thread(target=lambda: said.append(settle(settings, "algebra").said))
    with held(lock(settings, "algebra", "live"), "a run", print):
        waiting.start()
        time.sleep(0.3)
        assert (said, serve.versions()) == ([], {"algebra": "1"})
        crown(client, 1)
    waiting.join(20)
    assert (said, serve.versions()) == (["algebra: nothing to do any more"], {"algebra": "1"})


def test_who_is_refused_does_not_undo_what_went_live_from_another_home_meanwhile(
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = publishing.release_of(Registry.at(settings), "algebra", 3)

    def outrun(release: Release, *at: Any, **how: Any) -> str:
        if release.version != "2":
            return serve.publish(release, *at, **how)
        serve.live["algebra"] = theirs
        raise ServiceError("did not answer as version 2 in time")

    monkeypatch.setattr(deploy, "publish", outrun)
    crown(client, 2)
    desk.look()
    assert (serve.versions(), "in time" in tags(client, 2)[REFUSED]) == ({"algebra": "3"}, True)


@pytest.mark.parametrize("broken", [False, True])
def test_who_is_crowned_while_another_goes_live_is_not_undone_and_is_next(
    desk: Desk, client: MlflowClient, serve: Serve, broken: bool
) -> None:
    serve.broken = {("algebra", "2")} if broken else set()

    def meanwhile() -> None:
        serve.on_publish = lambda: None
        crown(client, 3)

    serve.on_publish = meanwhile
    crown(client, 2)
    desk.look()
    assert serve.versions() == {"algebra": "1" if broken else "2"}
    assert crowned(client, "algebra") == 3
    desk.look()
    assert (serve.versions(), aliases(client)) == ({"algebra": "3"}, (3, 1 if broken else 2))


def test_a_run_and_a_promotion_beside_it_are_one_after_the_other(
    client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    inside: list[int] = []

    def alone() -> None:
        inside.append(serve.guests)
        time.sleep(0.05)

    serve.on_publish = alone
    crown(client, 2)
    threads = [
        threading.Thread(target=lambda: settle(settings, "algebra")),
        threading.Thread(target=lambda: services.promote(settings, "algebra", 3)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert set(inside) == {1}
    assert serve.versions() == {"algebra": str(crowned(client, "algebra"))}


class Killed(BaseException):
    """As a SIGKILL is: nothing is tidied up."""


def killed(patch: pytest.MonkeyPatch, before: str, act: Callable[[], object]) -> None:
    """Somebody goes live and is killed before a step of the registry."""
    with patch.context() as mortal:
        mortal.setattr(register, before, lambda *_: _raise(Killed()))
        with pytest.raises(Killed):
            act()


def look_on(desk: Desk, clock: Clock, seconds: float = ASTRAY_S + ANSWERS_S) -> None:
    for _ in range(int(seconds / ANSWERS_S) + 1):
        desk.look()
        clock.now += ANSWERS_S


def test_a_promotion_killed_before_its_crowning_leaves_the_champion_live_within_a_minute(
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    for times in (1, 2):
        killed(monkeypatch, "crown", lambda: services.promote(settings, "algebra", 2))
        assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (1, None))
        look_on(desk, clock)
        assert (serve.versions(), aliases(client)) == ({"algebra": "1"}, (1, None))
        look_on(desk, clock)
        assert len(desk.settled) == times
    said = f"algebra: version 2 was left halfway; champion is 1, live at {serve.url}/algebra"
    assert words(log) == [said] * 2
    assert lines(settings) == [("reconcile", "algebra", 1, "done")] * 2
    assert json.loads(trail(settings).read_text().splitlines()[-1])["answered"] == "2"


def test_a_command_killed_in_its_last_step_has_done_what_it_was_asked(
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    killed(monkeypatch, "went_live", lambda: services.promote(settings, "algebra", 2))
    look_on(desk, clock)
    assert (desk.settled, serve.versions(), aliases(client)) == ([], {"algebra": "2"}, (2, 1))
    killed(monkeypatch, "crown", lambda: services.promote(settings, "algebra", 3))
    look_on(desk, clock)
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (2, 1))


def test_what_nobody_crowned_makes_room_for_a_champion_that_waited_to_go_live(
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    services.promote(replace(settings, ray_address=""), "algebra", 3)
    killed(monkeypatch, "crown", lambda: services.promote(settings, "algebra", 2))
    look_on(desk, clock)
    assert (serve.versions(), aliases(client)) == ({"algebra": "3"}, (3, 1))
    assert register.live(client, "algebra") == "3", "it waits no more"


def test_what_answers_is_asked_for_seldom_and_who_does_not_answer_is_left_alone(
    desk: Desk, serve: Serve, clock: Clock
) -> None:
    for _ in range(30):
        desk.look()
        clock.now += ANSWERS_S / 3
    assert (desk.asked, desk.greeted) == (30, 10)
    serve.live.clear()
    look_on(desk, clock)
    serve.url = "http://127.0.0.1:9"  # where nobody listens
    desk.reconciler.settings = replace(desk.reconciler.settings, http_port=9)
    look_on(desk, clock)
    assert desk.settled == []


def test_a_promotion_from_another_home_is_not_disturbed_as_it_crowns_what_answers(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve, clock: Clock
) -> None:
    look_on(desk, clock)
    for version in (2, 3):
        serve.live["algebra"] = publishing.release_of(Registry.at(settings), "algebra", version)
        look_on(desk, clock, ASTRAY_S - ANSWERS_S)
    register.crown(client, "algebra", 3)
    look_on(desk, clock)
    assert (desk.settled, serve.versions(), aliases(client)) == ([], {"algebra": "3"}, (3, 1))


def test_a_promotion_under_way_is_waited_for_and_looked_at_again_under_its_lock(
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    log: pytest.LogCaptureFixture,
    clock: Clock,
) -> None:
    serve.live["algebra"] = publishing.release_of(Registry.at(settings), "algebra", 2)
    with held(lock(settings, "algebra", "live"), "a promotion", print):
        look_on(desk, clock, 10 * ASTRAY_S)
        why = "algebra version 1 is champion, but 2 answers"
        assert words(log) == [f"{why}; waiting for whoever changes what is live"]
        assert (desk.settled, serve.versions()) == ([], {"algebra": "2"})
        said: list[str] = []
        waiting = threading.Thread(target=lambda: said.append(settle(settings, "algebra").said))
        waiting.start()
        time.sleep(0.3)
        register.crown(client, "algebra", 2)
    waiting.join(20)
    assert (said, serve.versions()) == (["algebra: nothing to do any more"], {"algebra": "2"})


def test_a_champion_that_does_not_load_leaves_what_answers_and_is_tried_again_seldom(
    desk: Desk,
    client: MlflowClient,
    settings: Settings,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    killed(monkeypatch, "crown", lambda: services.promote(settings, "algebra", 2))
    serve.broken.add(("algebra", "1"))
    look_on(desk, clock, ASTRAY_S + BROKEN_S - 2 * ANSWERS_S)
    assert (serve.versions(), aliases(client)) == ({"algebra": "2"}, (1, None))
    assert lines(settings) == [("reconcile", "algebra", 1, "refused")]
    serve.broken.clear()
    look_on(desk, clock)
    assert (serve.versions(), len(desk.settled)) == ({"algebra": "1"}, 2)


def test_services_of_many_pages_are_all_seen_and_models_of_others_left_alone(
    desk: Desk, client: MlflowClient, settings: Settings, serve: Serve
) -> None:
    client.create_registered_model("somebody else's")
    client.create_model_version("somebody else's", source=str(settings.home))
    crown(client, 1, "somebody else's")
    for name in ("geometry", "zoology"):
        registered(client, settings, name, 1)
        crown(client, 1, name)
    desk.page = 1
    desk.look()
    assert desk.settled == ["geometry", "zoology"]
    assert serve.versions() == {"algebra": "1", "geometry": "1", "zoology": "1"}


def done(status: int, said: str = "what it said\n") -> Callable[..., Any]:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command == [sys.executable, "-m", "flows.reconcile", "algebra"]
        return subprocess.CompletedProcess(command, status, said)

    return run


@pytest.mark.parametrize(
    ("status", "again_s"), [(0, 0.0), (reconcile.AGAIN, AGAIN_S), (1, BROKEN_S), (-9, BROKEN_S)]
)
def test_of_a_process_that_settles_its_last_line_and_its_end_are_known(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, status: int, again_s: float
) -> None:
    monkeypatch.setattr(subprocess, "run", done(status, "noise\nwhat it said\n"))
    settled = settle_aside(settings, "algebra")
    assert settled.again_s == again_s
    assert (settled.said == "what it said") == (status in {0, reconcile.AGAIN})


@pytest.mark.parametrize(
    "error", [OSError(12, "no memory"), subprocess.TimeoutExpired("python", 1)]
)
def test_a_process_that_does_not_start_or_does_not_end_ends_nothing_here(
    desk: Desk, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: _raise(error))
    desk.reconciler.settle = settle_aside
    crown(client, 2)
    desk.look(2)
    assert crowned(client, "algebra") == 2
    assert list(desk.reconciler.resting) == [("algebra", "2")]


def test_a_process_that_settles_says_so_in_one_line_and_with_its_exit_status(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installation, "read", lambda: settings)
    monkeypatch.setattr(sys, "argv", ["reconcile", "algebra"])
    for again_s, status in ((0.0, 0), (AGAIN_S, reconcile.AGAIN)):
        monkeypatch.setattr(reconcile, "settle", lambda *_, s=again_s: Settled("a\n  b", s))
        with pytest.raises(SystemExit) as ended:
            reconcile.main()
        assert (ended.value.code, capsys.readouterr().out) == (status, "a b\n")


def test_it_looks_on_and_on_and_counts_as_ready_once_mlflow_has_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True, False, True])
    ready: list[bool] = []
    path = record.reconciler_file(settings.home)
    path.parent.mkdir(parents=True)

    def look(_: Reconciler) -> bool:
        ready.append(path.exists())
        try:
            return next(answers)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(Reconciler, "look", look)
    monkeypatch.setattr(reconcile, "time", Clock())
    with pytest.raises(KeyboardInterrupt):
        reconcile.watch(settings)
    assert ready == [False, False, False, True, True, True]


def test_mlflow_that_asks_for_a_password_is_given_that_of_its_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    assert reconcile._password() is None
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "lyceum")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert reconcile._password() == ("lyceum", "secret")


def test_who_looks_loads_none_of_the_three() -> None:
    code = "import sys, flows.reconcile; print({'prefect', 'mlflow', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_speaks_of_aliases_and_tags_as_the_registry_does() -> None:
    ours = (reconcile.CHAMPION, reconcile.SEEN_TO, reconcile.LIVE)
    assert ours == (register.CHAMPION, register.SEEN_TO, register.LIVE)
