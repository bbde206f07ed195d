"""What is far too much, or far too slow, ends at the door: through the real proxy."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from ray_jobs.serving import deadlines
from ray_jobs.serving.release import Release
from tests.serving_parts import serving
from tests.test_serving_ray import SERVICE, Installation, release, request
from tests.test_serving_swaps import PARTS, processes

pytestmark = [pytest.mark.ray, pytest.mark.slow]

HUGE = 100 * 2**20  # bytes
SLOW = 100  # connections at once
LATE_S = 15.0  # over the limit, on a busy machine


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with serving(tmp_path_factory.mktemp("home")) as (settings, cluster):
        there = Installation(settings, cluster)
        there.publish(_release(tmp_path_factory))
        yield there


def _release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release(tmp_path_factory.mktemp("artifact"), 1)


def answers(at: Installation) -> None:
    """An ordinary request is answered, and not slowly."""
    begin = time.monotonic()
    told = httpx.post(f"{at.url}/v1/predict", json=request(5), headers=at.headers, timeout=10)
    assert told.status_code == 200, told.text
    assert time.monotonic() - begin < 2


def connected(at: Installation, head: str) -> socket.socket:
    """A connection on which that was sent."""
    host, _, port = at.cluster.services.removeprefix("http://").rpartition(":")
    one = socket.create_connection((host, int(port)), timeout=30)
    one.sendall(head.encode())
    return one


def post(at: Installation, *headers: str) -> str:
    lines = [
        f"POST /{SERVICE}/v1/predict HTTP/1.1",
        "host: here",
        "content-type: application/json",
        f"authorization: {at.headers['authorization']}",
        *headers,
    ]
    return "\r\n".join(lines) + "\r\n\r\n"


def heard(one: socket.socket) -> bytes:
    """All that comes until the other side closes, or nothing comes any more."""
    one.settimeout(3)
    data = b""
    with contextlib.suppress(OSError):  # closed while we still sent, or nothing more to come
        while part := one.recv(2**16):
            data += part
    return data


@pytest.mark.parametrize("how", ["told before", "in chunks"])
def test_a_hundred_megabytes_are_refused_and_nobody_holds_them(at: Installation, how: str) -> None:
    answers(at)
    (replica,) = processes(at, PARTS["replica"])
    before = replica.memory_full_info().uss
    chunked = how == "in chunks"
    length = "transfer-encoding: chunked" if chunked else f"content-length: {HUGE}"
    part = b" " * 2**20
    framed = b"%x\r\n%s\r\n" % (len(part), part) if chunked else part
    with connected(at, post(at, length)) as one:
        with contextlib.suppress(OSError):  # it is closed in our face
            for _ in range(HUGE // len(part)):
                one.sendall(framed)
        told = heard(one)
    assert told == b"" or told.startswith(b"HTTP/1.1 413"), told[:300]
    answers(at)
    assert processes(at, PARTS["replica"]) == [replica]
    assert (replica.memory_full_info().uss - before) / 2**20 < 50


def refused_within(connections: list[socket.socket], seconds: float) -> None:
    """Send to each a byte a second, as slow clients do, until all are told that it is too slow."""
    waiting, until = list(connections), time.monotonic() + seconds
    while waiting:
        assert time.monotonic() < until, f"{len(waiting)} were told nothing"
        for one in list(waiting):
            one.settimeout(0.001)
            with contextlib.suppress(TimeoutError):
                one.sendall(b" ")
                told = one.recv(2**16)
                assert told.startswith(b"HTTP/1.1 408"), told[:300]
                waiting.remove(one)
        time.sleep(1)


def closed_within(connections: list[socket.socket], seconds: float, word: bytes) -> None:
    """Send to each a byte a second, as slow clients do, until all are closed."""
    open_, until = list(connections), time.monotonic() + seconds
    while open_:
        assert time.monotonic() < until, f"{len(open_)} are open still"
        for one in list(open_):
            one.settimeout(0.001)
            try:
                one.sendall(word)
                if one.recv(2**16) == b"":
                    raise ConnectionResetError
            except TimeoutError:
                continue
            except OSError:
                open_.remove(one)
        time.sleep(1)


def test_heads_that_trickle_in_are_hung_up_on_and_others_feel_nothing(at: Installation) -> None:
    with contextlib.ExitStack() as stack:
        head = post(at)[:40]
        slow = [stack.enter_context(connected(at, head)) for _ in range(SLOW)]
        answers(at)
        closed_within(slow, deadlines.BODY_S + LATE_S, b"x")
        answers(at)


def test_bodies_that_trickle_in_are_refused_and_others_feel_nothing(at: Installation) -> None:
    with contextlib.ExitStack() as stack:
        head = post(at, "content-length: 1000", "connection: close")
        slow = [stack.enter_context(connected(at, head)) for _ in range(SLOW)]
        answers(at)
        time.sleep(1)
        answers(at)
        refused_within(slow, deadlines.BODY_S + LATE_S)
        answers(at)
