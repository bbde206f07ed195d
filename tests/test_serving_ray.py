"""A service holds while versions come and go: releases on a real Ray Serve, behind its proxy."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import ray
import torch
from ray import serve

from ray_jobs import artifact
from ray_jobs.cluster import Cluster
from ray_jobs.errors import PlatformError, ServiceError
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.recipe import Budget, Gate, Recipe, Resources
from ray_jobs.serving import deploy, keys
from ray_jobs.serving.release import Release, golden_outcomes
from ray_jobs.serving.site import Site
from ray_jobs.settings import Settings
from ray_jobs.training.job import TrainJob
from ray_jobs.training.submit import submit, wait
from tasks.gate import replica_checks
from tasks.run import Run
from tests.serving_parts import serving

pytestmark = pytest.mark.ray

SERVICE = "algebra-practice"
ITEMS = tuple(f"item {i}" for i in range(50))
QUICK_S = 20.0  # within which a version that cannot serve must be told, on a busy machine too


@dataclass(frozen=True)
class Installation:
    """A Ray of our own with Serve on it, and where releases lie."""

    settings: Settings
    cluster: Cluster

    @cached_property
    def headers(self) -> dict[str, str]:
        """What lets a client in."""
        _, key = keys.create(self.settings.store_uri, "test", ["*"])
        time.sleep(keys.KNOWN_S)
        return {"authorization": f"Bearer {key}"}

    @property
    def url(self) -> str:
        return f"{self.cluster.services}/{SERVICE}"

    def publish(self, release: Release, previous: Release | None = None) -> str:
        return deploy.publish(
            release,
            self.cluster.services,
            site=Site.of(self.settings),
            resources=Resources(),
            previous=previous,
        )


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with serving(tmp_path_factory.mktemp("home")) as (settings, cluster):
        yield Installation(settings, cluster)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    """Two versions of one service, which answer differently."""
    return [release(tmp_path_factory.mktemp("artifact"), number) for number in (1, 2)]


def release(folder: Path, number: int) -> Release:
    torch.manual_seed(number)
    spec, vocabulary = Rasch(), Vocabulary(ITEMS, ("adding", "taking away"))
    module = spec.build(vocabulary)
    module.item_difficulty.normal_()  # type: ignore[operator]
    digest = artifact.write(
        folder, kind="knowledge", spec=spec, vocabulary=vocabulary, module=module, about={}
    )
    requests = [request(n) for n in (0, 5, 50)]
    return Release(
        service=SERVICE,
        family="knowledge",
        lineage=f"{number:032x}",
        artifact=str(folder),
        digest=digest,
        golden=golden_outcomes(artifact.read(folder), requests),
        card={"description": "Knowledge tracing"},
        version=str(number),
    )


def request(answers: int) -> dict[str, object]:
    history = [
        {"item": ITEMS[i % 50], "skills": ["adding"], "correct": i % 2} for i in range(answers)
    ]
    return {"history": history, "candidates": [{"item": "item 3", "skills": ["taking away"]}]}


@dataclass
class Heard:
    """What clients heard from a service."""

    headers: dict[str, str]
    statuses: Counter[str] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def ask(self, client: httpx.Client, url: str) -> None:
        begin = time.monotonic()
        try:
            answer = client.post(f"{url}/v1/predict", json=request(10), headers=self.headers)
            self.statuses[str(answer.status_code)] += 1
            self.versions.append(answer.json().get("version"))
        except httpx.HTTPError as error:
            self.statuses[repr(error)] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - begin)


@contextmanager
def asked_throughout(at: Installation) -> Iterator[Heard]:
    """Ask a service without end for as long as the block runs.

    Some clients keep their connection, as applications do; one opens a new one
    each time, as scripts do.
    """
    heard, over, url = Heard(at.headers), threading.Event(), at.url

    def keeps() -> None:
        with httpx.Client(timeout=30) as client:
            while not over.wait(0.02):
                heard.ask(client, url)

    def comes_and_goes() -> None:
        while not over.wait(0.1):
            with httpx.Client(timeout=30) as client:
                heard.ask(client, url)

    threads = [threading.Thread(target=t) for t in (keeps, keeps, comes_and_goes)]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        over.set()
        for thread in threads:
            thread.join()


def run(at: Installation, **limits: Any) -> Run:
    recipe = Recipe(
        name="test", family="knowledge", service=SERVICE, spec=Rasch(), gate=Gate(**limits)
    )
    return Run(recipe, at.settings)


def replicas() -> set[str]:
    """The replicas of the service that there are, by the names of their actors."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {a["name"] for a in actors if SERVICE in a["name"]}


@pytest.fixture
def live(at: Installation, releases: list[Release]) -> Release:
    """Version 1, live."""
    at.publish(releases[0])
    return releases[0]


def test_a_serve_that_listens_elsewhere_is_told_at_once(at: Installation) -> None:
    port = int(at.cluster.services.rpartition(":")[2])
    deploy.start("127.0.0.1", port)
    with pytest.raises(PlatformError, match=rf"at port {port} already.*LYCEUM_HTTP_PORT={port}"):
        deploy.start("127.0.0.1", port + 1)


def test_a_published_release_answers_what_was_evaluated(at: Installation, live: Release) -> None:
    assert deploy.live_version(at.url) == "1"
    for case in live.golden:
        answer = httpx.post(f"{at.url}/v1/predict", json=case["request"], headers=at.headers)
        assert answer.status_code == 200
        assert answer.json()["lineage"] == live.lineage
        told = [p["probability"] for p in answer.json()["predictions"]]
        assert told == pytest.approx([outcome[0] for outcome in case["outcomes"]], abs=1e-5)
    refused = httpx.post(f"{at.url}/v1/predict", json={}, headers=at.headers)
    assert refused.headers["content-type"] == "application/problem+json"
    assert httpx.get(f"{at.url}/openapi.json").json()["servers"] == [{"url": f"/{SERVICE}"}]


def test_a_replica_logs_lines_of_json_of_its_version(at: Installation, live: Release) -> None:
    node = ray._private.worker._global_node
    assert node
    folder = Path(node.get_logs_dir_path()) / "serve"
    written = [path.read_text() for path in folder.glob(f"replica_{SERVICE}_*.log")]
    lines = [json.loads(line) for text in written for line in text.splitlines()]
    (loaded,) = [line for line in lines if line["message"].startswith("loaded and verified in ")]
    assert loaded["version"] == live.version
    assert loaded["lineage"] == live.lineage
    assert loaded["service"] == SERVICE


def test_nobody_comes_in_without_a_key(at: Installation, live: Release) -> None:
    for headers in ({}, {"authorization": "Bearer lyc_000000000000_x"}):
        answer = httpx.post(f"{at.url}/v1/predict", json=request(1), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-lyceum-version"] == live.version
    answer = httpx.post(
        f"{at.url}/v1/predict", json=request(1), headers={**at.headers, "x-request-id": "mine"}
    )
    assert answer.status_code == 200
    assert answer.headers.get_list("x-request-id") == ["mine"]


def test_a_limit_holds_for_all_replicas_together_and_others_feel_nothing(
    at: Installation, releases: list[Release]
) -> None:
    limited, each_s = replace(releases[0], service="limited"), 10.0
    site, url = Site.of(at.settings), f"{at.cluster.services}/limited/v1/predict"
    deploy.deploy(limited, at.cluster.services, site=site, resources=Resources(replicas=2))
    made = [keys.create(site.store, "test", ["limited"], per_second=n)[1] for n in (each_s, 0)]
    time.sleep(keys.KNOWN_S)
    told: list[list[httpx.Response]] = [[], []]

    def ask(heard: list[httpx.Response], key: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        while time.monotonic() < begin + 4:
            heard.append(httpx.post(url, json=request(1), headers=headers))

    begin = time.monotonic()
    asked = [threading.Thread(target=ask, args=pair) for pair in zip(told, made, strict=True)]
    more = [threading.Thread(target=ask, args=(told[0], made[0])) for _ in range(3)]
    for thread in (*asked, *more):
        thread.start()
    for thread in (*asked, *more):
        thread.join()
    seconds = time.monotonic() - begin
    deploy.remove("limited")
    statuses = Counter(one.status_code for one in told[0])
    assert set(statuses) == {200, 429}
    # Fewer where the machine is busy: what one replica took, the other could not spend.
    assert 0.4 * each_s * (1 + seconds) < statuses[200] <= each_s * (1 + seconds) + 1
    waits = {int(one.headers["retry-after"]) for one in told[0] if one.status_code == 429}
    assert waits == {1}
    assert {one.status_code for one in told[1]} == {200}
    actors = [a["name"] for a in ray.util.list_named_actors(all_namespaces=True)]
    assert "limits-limited" in actors, "the two spent from one ledger"


def test_what_is_live_already_is_left_alone(at: Installation, live: Release) -> None:
    before = replicas()
    assert at.publish(live) == at.url
    assert len(before) == 1
    assert replicas() == before


def test_a_new_version_takes_over_and_no_request_is_lost(
    at: Installation, live: Release, releases: list[Release]
) -> None:
    with asked_throughout(at) as heard:
        time.sleep(0.5)
        at.publish(releases[1], previous=live)
        published = len(heard.versions)
        time.sleep(0.5)
    assert set(heard.statuses) == {"200"}
    assert heard.statuses["200"] > 50
    assert heard.slowest_s < 2
    assert heard.versions[0] == "1"
    # Those under way when it was published may still have met the old one.
    assert set(heard.versions[published + 3 :]) == {"2"}


def test_what_cannot_load_never_takes_traffic_and_the_reason_is_told(
    at: Installation, live: Release, releases: list[Release], tmp_path: Path
) -> None:
    broken = replace(release(tmp_path / "three", 3), digest="0" * 64)
    told = pytest.raises(ServiceError, match=r"could not start: .* has digest .* but")
    with asked_throughout(at) as heard, told:
        at.publish(broken, previous=live)
    assert set(heard.statuses) == {"200"}
    assert set(heard.versions) == {"1"}
    # Not merely still running: Serve wants it again, and would start it anew.
    application = serve.status().applications[SERVICE]
    assert application.status == "RUNNING"
    assert application.deployments["replica"].replica_states == {"RUNNING": 1}


def damaged(at: Path) -> None:
    path = at / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")


def gone(at: Path) -> None:
    (at / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(damaged, r"weights\.safetensors does not match its digest"), (gone, r"is missing")],
)
def test_the_gate_tells_why_a_candidate_does_not_load(
    at: Installation, live: Release, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    candidate = release(tmp_path / "four", 4)
    spoil(tmp_path / "four")
    begin = time.monotonic()
    (check,) = replica_checks(run(at), candidate, at.cluster)
    assert time.monotonic() - begin < QUICK_S
    assert not check.passed
    assert re.search(reason, check.reason), check.reason
    assert set(serve.status().applications) == {SERVICE}


def test_the_gate_refuses_a_candidate_that_answers_otherwise_than_evaluated(
    at: Installation, live: Release, tmp_path: Path
) -> None:
    candidate = release(tmp_path / "five", 5)
    candidate.golden[1]["outcomes"][0][0] += 0.01
    (check,) = replica_checks(run(at), candidate, at.cluster)
    assert not check.passed
    assert "golden request 1" in check.reason
    assert "0.0100 away" in check.reason
    assert deploy.live_version(at.url) == live.version


def test_a_gate_measures_a_real_replica_and_leaves_nothing_behind(
    at: Installation, live: Release, releases: list[Release], capfd: pytest.CaptureFixture[str]
) -> None:
    loaded, latency = replica_checks(run(at, max_latency_ms=1e-3), releases[1], at.cluster)
    assert loaded.passed
    assert not latency.passed
    assert re.match(
        r"p95 of single requests [\d.]+ ms in a real replica; at most 0\.001$", latency.reason
    )
    assert set(serve.status().applications) == {SERVICE}
    left = f"{at.cluster.services}/candidate-{SERVICE}-{releases[1].lineage[:8]}"
    assert deploy.live_version(left) is None
    assert deploy.live_version(at.url) == live.version
    assert "serve" not in "".join(capfd.readouterr()), "its chatter tells a person nothing"
    assert logging.getLogger("ray.serve").isEnabledFor(logging.WARNING)


def test_a_first_version_that_fails_leaves_no_wreck(at: Installation, tmp_path: Path) -> None:
    broken = replace(release(tmp_path / "six", 6), service="geometry", digest="0" * 64)
    with pytest.raises(ServiceError, match="has digest"):
        at.publish(broken)
    assert "geometry" not in serve.status().applications
    assert deploy.live_version(f"{at.cluster.services}/geometry") is None


def test_a_service_answers_while_its_successor_trains(
    at: Installation, live: Release, tmp_path: Path
) -> None:
    for name, learners in (("train", 60), ("validation", 10)):
        answers(learners).write_parquet(tmp_path / f"{name}.parquet")
    job = TrainJob(
        name=tmp_path.name,
        family="knowledge",
        spec={"name": "lstm", "width": 32, "neighbours": 0},
        train=str(tmp_path / "train.parquet"),
        validation=str(tmp_path / "validation.parquet"),
        output=str(tmp_path / "output"),
        seed=1,
        workers=2,
        budget=Budget(epochs=5, batch_cost=512),
        resources=Resources(),
        about={},
    )
    dashboard = at.cluster.dashboard
    with asked_throughout(at) as heard:
        wait(job, submit(job, dashboard), dashboard, lambda _: None)
    assert set(heard.statuses) == {"200"}
    assert set(heard.versions) == {live.version}
    assert heard.slowest_s < 5
    assert artifact.read(Path(job.artifact)).about["workers"] == 2


def answers(learners: int) -> pl.DataFrame:
    n = learners * 40
    columns = {
        "learner": [f"learner {i // 40}" for i in range(n)],
        "item": [ITEMS[i % 50] for i in range(n)],
        "skills": [["adding"]] * n,
        "correct": [float(i % 3 > 0) for i in range(n)],
        "time": [float(i) for i in range(n)],
        "position": list(range(n)),
        "bucket": [0] * n,
        "split": [None] * n,
        "scored": [True] * n,
        "response_s": [None] * n,
        "about": [None] * n,
    }
    return pl.DataFrame(columns, schema=CLEAN)
