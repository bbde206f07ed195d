"""What is read off a service from outside: who answers, how fast, and why a replica gave up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import orjson
import pytest
from ray.serve.schema import ApplicationStatus

from ray_jobs.errors import ServiceError, UsageError
from ray_jobs.recipe import Resources
from ray_jobs.serving import deploy
from ray_jobs.serving.release import Release
from ray_jobs.serving.site import Site
from tests.remote_parts import Answer, Clock, HangUpError, Said, answering

JSON, TEXT = "application/json", "text/plain"
GOLDEN = [{"request": {"asks": n}, "outcomes": [[0.5]]} for n in range(3)]
RELEASE = Release("algebra", "knowledge", "l" * 32, "/somewhere", "d" * 64, GOLDEN, {}, {}, "7")
READY = {"status": "ready", "version": "7", "lineage": RELEASE.lineage}
Serving = Callable[[Answer], str]


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Start a service that answers as told; its URL."""
    servers = []

    def start(answer: Answer) -> str:
        servers.append(answering(answer))
        return f"{servers[-1].__enter__()}/algebra"

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deploy, "time", clock)
    return clock


def test_a_service_says_which_version_it_is(serving: Serving) -> None:
    def answer(method: str, path: str, body: bytes) -> Said:
        said = {"/algebra/readyz": READY, "/algebra/healthz": {"version": "7"}}[path]
        return 200, JSON, orjson.dumps(said)

    url = serving(answer)
    assert deploy.live_version(url) == "7"
    assert deploy.is_live(url, RELEASE)
    assert not deploy.is_live(url, replace(RELEASE, version="8"))
    assert not deploy.is_live(url, replace(RELEASE, lineage="m" * 32))


def test_a_service_that_is_not_ready_is_there_all_the_same(serving: Serving) -> None:
    def answer(method: str, path: str, body: bytes) -> Said:
        return 503 if path == "/algebra/readyz" else 200, JSON, orjson.dumps(READY)

    url = serving(answer)
    assert deploy.live_version(url) == "7"
    assert not deploy.is_live(url, RELEASE)


@pytest.mark.parametrize(
    "said",
    [
        (503, JSON, orjson.dumps(READY)),
        (404, TEXT, b"Path '/algebra/readyz' not found."),
        (200, "text/html", b"<h1>Somebody else's page</h1>"),
        (200, JSON, orjson.dumps([READY])),
        (200, JSON, b"{}"),
        (200, JSON, b"\xff"),
    ],
)
def test_whoever_else_answers_there_is_nobody(said: Said, serving: Serving) -> None:
    url = serving(lambda *_: said)
    assert not deploy.is_live(url, RELEASE)
    assert deploy.live_version(url) is None


def test_where_nobody_answers_nobody_is_live(serving: Serving) -> None:
    def hangs_up(*_: object) -> Said:
        raise HangUpError

    with answering(hangs_up) as gone:
        pass
    for url in (gone, serving(hangs_up)):
        assert not deploy.is_live(url, RELEASE)
        assert deploy.live_version(url) is None


def test_what_may_not_serve_is_refused_even_where_it_answers(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy, "_state", lambda _: ApplicationStatus.RUNNING)
    url = serving(lambda *_: (200, JSON, orjson.dumps(READY)))
    leaky, base = replace(RELEASE, barred="it leaks"), url.removesuffix("/algebra")
    with pytest.raises(UsageError, match="version 7 of algebra may not serve: it leaks"):
        deploy.publish(leaky, base, site=Site("nowhere", "nowhere"), resources=Resources())


def test_latencies_are_those_of_warm_replies_in_milliseconds(
    serving: Serving, clock: Clock
) -> None:
    bodies: list[bytes] = []

    def answer(method: str, path: str, body: bytes) -> Said:
        clock.now += 60 if len(bodies) < deploy.WARM_UP else 0.005 * len(bodies)
        bodies.append(body)
        return 200, JSON, b"{}"

    taken = deploy.latencies_ms(serving(answer), RELEASE, count=4, token="any")
    assert taken == pytest.approx([5.0 * (deploy.WARM_UP + n) for n in range(4)])
    assert [orjson.loads(body)["asks"] for body in bodies] == [n % 3 for n in range(14)]


def test_a_replica_that_refuses_or_falls_silent_has_no_latency(serving: Serving) -> None:
    def refuses(method: str, path: str, body: bytes) -> Said:
        if orjson.loads(body)["asks"] == 2:
            return 500, TEXT, b"this is our fault" + b"." * 999
        return 200, JSON, b"{}"

    def falls_silent(method: str, path: str, body: bytes) -> Said:
        raise HangUpError

    url = serving(refuses)
    with pytest.raises(ServiceError, match=rf"^{url}/v1/predict: 500 this is our fault\.{{183}}$"):
        deploy.latencies_ms(url, RELEASE, token="any")
    url = serving(falls_silent)
    with pytest.raises(ServiceError, match=f"^{url}/v1/predict went silent: RemoteProtocolError"):
        deploy.latencies_ms(url, RELEASE, token="any")


OURS = """The deployment failed to start 1 times in a row. Error:
ray::ServeReplica:algebra:replica.initialize() (pid=1, ip=1.2.3.4)
  File "replica.py", line 26, in __init__
    verify(model, self.release)
ray_jobs.errors.ServiceError: golden request 1 is answered 0.0100 away: it will not be served

Retrying 0 times."""


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([OURS], "golden request 1 is answered 0.0100 away: it will not be served"),
        (["", OURS], "golden request 1 is answered 0.0100 away: it will not be served"),
        ([OURS, "  OSError: [Errno 28] no space left"], "OSError: [Errno 28] no space left"),
        (["KeyError: 'a'\nValueError: handling it"], "ValueError: handling it"),
        (["KeyError: 'a'\nray::Replica RuntimeError: of the actor"], "KeyError: 'a'"),
        (["one\ntwo", "three\n four \nfive\nsix"], "two three four five six"),
        (["x" * 600 + "end"], "x" * 497 + "end"),
        ([], ""),
    ],
)
def test_of_a_replicas_last_words_the_reason_is_told(messages: list[str], words: str) -> None:
    assert deploy.last_words(messages) == words
