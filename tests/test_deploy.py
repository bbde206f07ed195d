"""A release goes live or leaves no trace: publishing against a Serve that fits into this process.

It keeps the promises of Ray Serve that publishing builds on, holds real replicas, and answers
for them over HTTP; time is a clock that nobody waits for.
"""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from ray import serve
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, ServeStatus

from ray_jobs import artifact
from ray_jobs.errors import ServiceError
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.privacy import load_key
from ray_jobs.recipe import Resources
from ray_jobs.serving import deploy, logs
from ray_jobs.serving.release import Release, golden_outcomes
from ray_jobs.serving.replica import Replica
from ray_jobs.serving.site import Site
from tests.remote_parts import Clock, Said, answering

SERVICE = "algebra"
ITEMS = tuple(f"item {i}" for i in range(5))
Look = tuple[str, str]  # status that is told, and which replica answers: the old one or the new
USUAL: list[Look] = [("DEPLOYING", "old"), ("DEPLOYING", "new"), ("RUNNING", "new")]


@dataclass
class Application:
    """One application of a Serve: what it shall be, and who answers for it meanwhile."""

    wanted: tuple[Any, ...]  # a replica's arguments
    claims: tuple[Any, ...]  # replicas, and what each takes of the cluster
    looks: list[Look]
    replica: Replica | None = None
    status: str = "DEPLOYING"
    message: str = ""
    number: int = 0  # replicas started for it so far

    def look(self) -> None:
        self.status, who = self.looks.pop(0) if self.looks else (self.status, "old")
        if who == "old" or (self.replica and self.replica.release == Release(**self.wanted[0])):
            return
        try:
            self.replica, self.number = Replica(*self.wanted), self.number + 1
        except Exception:  # noqa: BLE001 - as Serve does
            self.status, self.message, self.looks = "DEPLOY_FAILED", traceback.format_exc(), []


@dataclass
class Serve:
    """Ray Serve in a nutshell: old replicas stay until the new ones stand."""

    applications: dict[str, Application] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=lambda: USUAL)
    url: str = ""
    key_file: str = ""
    runs: int = 0  # times that it was told to start something

    def run_many(self, targets: Sequence[Any], *, wait_for_applications_running: bool) -> None:
        assert not wait_for_applications_running, "it waits for ever for what cannot start"
        self.runs += 1
        for target in targets:
            assert target.route_prefix == f"/{target.name}"
            made = target.target._bound_deployment
            claims = (made.num_replicas, made.ray_actor_options)
            new = Application(made.init_args, claims, list(self.looks))
            if old := self.applications.get(target.name):
                new.replica, new.number = old.replica, old.number
            self.applications[target.name] = new

    def status(self) -> ServeStatus:
        for application in self.applications.values():
            application.look()
        told = {
            name: ApplicationStatusOverview(ApplicationStatus(a.status), a.message, 0.0, {})
            for name, a in self.applications.items()
        }
        return ServeStatus(applications=told)

    def delete(self, name: str) -> None:
        self.applications.pop(name, None)

    def __call__(self, method: str, path: str, body: bytes) -> Said:
        application = self.applications.get(path.split("/")[1])
        if application is None or application.replica is None:
            return 404, "text/plain", b"Path '/x' not found."
        transport = httpx.ASGITransport(app=application.replica.surface)  # type: ignore[arg-type]

        async def through() -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url="http://school") as client:
                return await client.request(method, path, content=body)

        told = asyncio.run(through())
        return told.status_code, told.headers["content-type"], told.content

    def publish(self, release: Release, previous: Release | None = None, **claims: Any) -> str:
        return deploy.publish(
            release,
            self.url,
            site=Site(self.key_file, str(Path(self.key_file).parent / "store")),
            resources=Resources(**claims),
            previous=previous,
        )

    def answers(self) -> str | None:
        return deploy.live_version(f"{self.url}/{SERVICE}")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deploy, "time", clock)
    return clock


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    load_key(tmp_path / "key")  # as who ingests does
    thresholds = gc.get_threshold()
    threads, at = torch.get_num_threads(), Serve(key_file=str(tmp_path / "key"))
    monkeypatch.setattr(logs, "structured", lambda _: None)  # of a process that is a replica's
    for name in ("run_many", "status", "delete"):
        monkeypatch.setattr(serve, name, getattr(at, name))
    with answering(at) as at.url:
        yield at
    torch.set_num_threads(threads)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    return [release(tmp_path_factory.mktemp("artifact"), number) for number in (1, 2)]


def release(folder: Path, number: int) -> Release:
    torch.manual_seed(number)
    spec, vocabulary = Rasch(), Vocabulary(ITEMS, ("adding",))
    module = spec.build(vocabulary)
    module.item_difficulty.normal_()  # type: ignore[operator]
    digest = artifact.write(
        folder, kind="knowledge", spec=spec, vocabulary=vocabulary, module=module, about={}
    )
    asked = [{"history": [], "candidates": [{"item": item}]} for item in ITEMS[:3]]
    golden = golden_outcomes(artifact.read(folder), asked)
    lineage, version = f"{number:032x}", str(number)
    return Release(SERVICE, "knowledge", lineage, str(folder), digest, golden, {}, {}, version)


def broken(of: Release) -> Release:
    return replace(of, version="3", lineage="3" * 32, digest="0" * 64)


def test_a_published_release_is_live_with_what_its_recipe_claims(
    at: Serve, releases: list[Release]
) -> None:
    url = at.publish(releases[0], replicas=2, replica_cpus=0.5)
    assert url == f"{at.url}/{SERVICE}"
    assert deploy.is_live(url, releases[0])
    assert not deploy.is_live(url, releases[1])
    assert at.applications[SERVICE].claims == (2, {"num_cpus": 0.5})


LOOKS: list[list[Look]] = [
    [("DEPLOYING", "old"), ("DEPLOYING", "new"), ("DEPLOYING", "new"), ("RUNNING", "new")],
    [("RUNNING", "old"), ("RUNNING", "old"), ("DEPLOYING", "new"), ("RUNNING", "new")],
]


@pytest.mark.parametrize("looks", LOOKS)
def test_a_release_is_published_once_it_alone_answers(
    looks: list[Look], at: Serve, releases: list[Release]
) -> None:
    at.publish(releases[0])
    at.looks = looks
    at.publish(releases[1])
    assert not at.applications[SERVICE].looks, "it was said to be live before its time"
    assert at.answers() == "2"


def test_what_is_live_already_is_left_alone_and_what_ails_is_started_again(
    at: Serve, releases: list[Release]
) -> None:
    at.publish(releases[0])
    before = at.applications[SERVICE]
    assert at.publish(releases[0]) == f"{at.url}/{SERVICE}"
    assert at.applications[SERVICE] is before
    before.status = "UNHEALTHY"
    at.publish(releases[0])
    assert at.applications[SERVICE] is not before


def test_a_release_that_cannot_load_never_answers_and_the_one_before_is_wanted_again(
    at: Serve, releases: list[Release]
) -> None:
    at.publish(releases[0])
    with pytest.raises(
        ServiceError, match=r"service algebra could not start: .* has digest .*back$"
    ):
        at.publish(broken(releases[1]), previous=releases[0])
    application = at.applications[SERVICE]
    assert application.status == "RUNNING"
    assert Release(**application.wanted[0]) == releases[0]
    assert (at.answers(), application.number) == ("1", 1)


def test_a_first_release_that_cannot_load_leaves_nothing(
    at: Serve, releases: list[Release]
) -> None:
    with pytest.raises(ServiceError, match="has digest"):
        at.publish(broken(releases[0]))
    assert at.applications == {}


def test_what_answers_is_not_taken_down_for_a_failed_release(
    at: Serve, releases: list[Release]
) -> None:
    at.publish(releases[0])
    for previous in (None, broken(releases[0])):
        with pytest.raises(ServiceError, match="has digest"):
            at.publish(broken(releases[1]), previous=previous)
        assert at.answers() == "1"
    assert at.runs == 3, "what just failed is not tried again"


def test_who_went_live_from_elsewhere_meanwhile_is_not_undone_by_a_release_that_fails(
    at: Serve, releases: list[Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.publish(releases[0])
    theirs, waits = release(tmp_path, 3), deploy._await_live

    def outrun(*_: object) -> None:
        monkeypatch.setattr(deploy, "_await_live", waits)
        at.publish(theirs, previous=releases[0])
        raise ServiceError("did not answer as version 2 in time")

    monkeypatch.setattr(deploy, "_await_live", outrun)
    with pytest.raises(ServiceError, match="in time"):
        at.publish(releases[1], previous=releases[0])
    assert at.answers() == "3"
    assert Release(**at.applications[SERVICE].wanted[0]) == theirs


def test_where_the_one_before_is_gone_too_the_first_reason_is_told(
    at: Serve, releases: list[Release], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = replace(releases[0], artifact=str(tmp_path / "lost"))
    with pytest.raises(ServiceError, match="has digest"):
        at.publish(broken(releases[1]), previous=lost)
    assert "algebra: the previous release could not be put back" in caplog.text
    assert f"nothing at {tmp_path}/lost" in caplog.text


def test_a_release_that_does_not_answer_in_time_is_told_with_who_it_is(
    at: Serve, releases: list[Release], clock: Clock
) -> None:
    at.looks, begin = [("DEPLOYING", "old")], clock.now
    with pytest.raises(ServiceError) as caught:
        at.publish(replace(releases[1], version=""))
    assert str(caught.value).startswith(
        f"service algebra did not answer as version unregistered, lineage {releases[1].lineage}, "
        f"at {at.url}/algebra within 120 s; "
    )
    assert 120 < clock.now - begin < 125


def test_a_candidate_stands_beside_the_service_and_is_gone_after(
    at: Serve, releases: list[Release]
) -> None:
    at.publish(releases[0])
    how: dict[str, Any] = {"site": Site(at.key_file, "store"), "resources": Resources()}

    def visit() -> None:
        with deploy.candidate(releases[1], at.url, **how) as url:
            assert url == f"{at.url}/candidate-algebra-00000000"
            assert (deploy.live_version(url), at.answers()) == ("2", "1")
            raise RuntimeError("of the visitor")

    with pytest.raises(RuntimeError, match="of the visitor"):
        visit()
    assert set(at.applications) == {SERVICE}
    with (
        pytest.raises(ServiceError, match="has digest"),
        deploy.candidate(broken(releases[1]), at.url, **how),
    ):
        pass
    assert set(at.applications) == {SERVICE}


def test_a_candidate_takes_down_what_killed_gates_of_its_service_left_and_nothing_else(
    at: Serve, releases: list[Release]
) -> None:
    how: dict[str, Any] = {"site": Site(at.key_file, "store"), "resources": Resources()}
    names = ("algebra-two", "algebra-0000beef", "geometry")
    others = ["algebra", "algebra-two", *(f"candidate-{name}-0000cafe" for name in names)]
    left = ["candidate-algebra-0000beef", "candidate-algebra-0000cafe"]
    for name in (*others, *left):
        deploy.deploy(releases[0], at.url, name=name, **how)
    with deploy.candidate(releases[1], at.url, **how):
        assert sorted(at.applications) == sorted([*others, "candidate-algebra-00000000"])
    assert sorted(at.applications) == sorted(others)


def test_an_application_that_will_not_go_is_told(
    monkeypatch: pytest.MonkeyPatch, at: Serve
) -> None:
    def hangs(_: str) -> None:
        raise TimeoutError("after 60 s")

    deploy.remove("nobody")
    monkeypatch.setattr(serve, "delete", hangs)
    with pytest.raises(ServiceError, match="service algebra could not be taken down: after 60 s"):
        deploy.remove(SERVICE)
