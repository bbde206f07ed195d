"""A service that restarts, is busy, or is gone: what a client waits for, and how long."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from ray_jobs.client import LyceumApiError, NoSuchService, NotFound, RateLimited, Unavailable, calls
from ray_jobs.client.errors import Asked, unheard
from tests.client_parts import (
    Clock,
    Make,
    Reply,
    askers,
    plain,
    playing,
    problem,
)  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Make]:
    with askers(request.param, clock) as one:
        yield one


PASSING = {
    "reset": Reply(fault="reset"),
    "cut": Reply(fault="cut"),
    **{f"plain {status}": plain(status) for status in (500, 502, 503, 504)},
    "not ready": problem(503),
    "too slow": problem(408),
    "too many": problem(429),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_looks_like_a_slow_call(make: Make, clock: Clock, name: str) -> None:
    with playing(PASSING[name], PASSING[name], Reply()) as service:
        assert make(service.url)("predict", history=[]).version == "7"
        assert make(service.url)("call_many", "predict", []) == []
    assert len(service.heard) == 3
    assert len({one.headers["x-request-id"] for one in service.heard}) == 1
    assert len(clock.pauses) == 2
    assert clock.pauses[0] <= 0.1
    assert clock.pauses[1] <= 0.2


def test_a_service_that_is_down_is_waited_for(make: Make, clock: Clock) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ExitStack() as stack:
        sleep = clock.sleep

        def start(seconds: float) -> None:
            sleep(seconds)
            if len(clock.pauses) == 3:
                stack.enter_context(playing(Reply(), port=port))

        clock.sleep = start  # type: ignore[method-assign]
        told = make(f"http://127.0.0.1:{port}/algebra-practice")("predict", history=[])
        assert told.version == "7"
    assert len(clock.pauses) == 3


def test_a_wait_that_is_asked_for_is_kept_exactly(make: Make, clock: Clock) -> None:
    script = (
        problem(429, headers={"retry-after": "7"}),
        plain(503, **{"retry-after": "3"}),
        Reply(),
    )
    with playing(*script) as service:
        make(service.url)("predict", history=[])
    assert clock.pauses == [7, 3]


def test_told_to_ask_at_once_it_pauses_all_the_same(make: Make, clock: Clock) -> None:
    with playing(*[plain(503, **{"retry-after": "0"})] * 5, Reply()) as service:
        make(service.url)("predict", history=[])
    assert len(clock.pauses) == 5
    assert sum(clock.pauses) > 0


def test_a_wait_beyond_the_deadline_is_told_at_once(make: Make, clock: Clock) -> None:
    kinds: dict[int, type[LyceumApiError]] = {429: RateLimited, 503: Unavailable}
    for status, kind in kinds.items():
        with (
            playing(problem(status, headers={"retry-after": "5"})) as service,
            pytest.raises(kind, match="what is") as caught,
        ):
            make(service.url, timeout_s=5)("predict", history=[])
        assert (caught.value.retry_after_s, caught.value.status) == (5, status)
        assert (len(service.heard), clock.pauses) == (1, [])


@pytest.mark.parametrize("timeout_s", [1.0, 30.0])
def test_no_call_is_tried_beyond_its_deadline(make: Make, clock: Clock, timeout_s: float) -> None:
    with playing(plain(503)) as service, pytest.raises(Unavailable, match="ask again later"):
        make(service.url, timeout_s=timeout_s)("predict", history=[])
    assert timeout_s - calls.LONGEST_PAUSE_S <= sum(clock.pauses) < timeout_s
    assert max(clock.pauses) <= calls.LONGEST_PAUSE_S
    assert len(service.heard) == len(clock.pauses) + 1 > 3


def test_each_try_has_what_is_left_of_the_time(clock: Clock) -> None:
    steps = calls.Calls("http://here/s", timeout_s=20, clock=clock).card()
    first = next(steps)
    assert isinstance(first, calls.Send)
    clock.now += 12
    pause = steps.send(httpx.ConnectError("refused"))
    assert isinstance(pause, calls.Pause)
    again = next(steps)
    assert isinstance(again, calls.Send)
    assert (first.timeout.read, again.timeout.read) == (20, 8)
    assert again.timeout.connect == calls.CONNECT_S


def test_who_does_not_answer_is_given_up(make: Make) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/s"
        with pytest.raises(Unavailable, match=r"no answer \(") as caught:
            make(url, timeout_s=0.05, clock=time.monotonic)("predict", history=[])
    assert isinstance(caught.value.__cause__, httpx.TimeoutException)
    assert caught.value.status is None


def test_a_service_that_was_there_and_is_not_found_is_waited_for(make: Make, clock: Clock) -> None:
    forgotten = [plain(404, **{"retry-after": "4"})] * 4
    with playing(Reply(), *forgotten, Reply()) as service:
        ask = make(service.url)
        ask("predict", history=[])
        assert ask("predict", history=[]).version == "7"
    assert sum(clock.pauses) == 16 > calls.FOUND_S
    with playing(plain(500), *forgotten, Reply()) as service:
        assert make(service.url)("predict", history=[]).version == "7"


def test_a_service_that_nobody_ever_heard_of_is_soon_given_up(make: Make, clock: Clock) -> None:
    with playing(plain(404), plain(404), Reply()) as service:
        assert make(service.url)("predict", history=[]).version == "7", "a proxy that just started"
    clock.pauses.clear()
    with playing(plain(404)) as service, pytest.raises(NoSuchService, match="check the URL"):
        make(service.url)("predict", history=[])
    assert calls.FOUND_S - calls.LONGEST_PAUSE_S <= sum(clock.pauses) < calls.FOUND_S


def test_a_verb_that_is_not_known_is_told_at_once(make: Make, clock: Clock) -> None:
    with playing(Reply(), problem(404, detail="no 'v1/predcit' here")) as service:
        ask = make(service.url)
        ask("predict", history=[])
        with pytest.raises(NotFound, match="no 'v1/predcit' here"):
            ask("call", "predcit", {})
    assert clock.pauses == []


def test_a_certificate_that_is_not_trusted_is_not_waited_for() -> None:
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.__cause__ = ssl.SSLCertVerificationError()
    told = unheard(error, Asked("GET", "https://here", "r"))
    assert "SSL_CERT_FILE" in str(told)
    assert not told.retryable
    assert unheard(httpx.ConnectError("refused"), Asked("GET", "https://here", "r")).retryable
