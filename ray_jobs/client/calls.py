"""What is asked of a service, step by step, and when it is asked again; without any I/O.

A call is a generator: it yields what to send and how long to wait, is told what
came of it, and returns the answer. The sync and the async client carry it out.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from ray_jobs import __version__
from ray_jobs.client.answers import Answer, Card, Feedback, document, parsed, unexpected
from ray_jobs.client.errors import (
    Asked,
    LyceumApiError,
    RateLimited,
    TooLarge,
    Unavailable,
    refused,
    unheard,
)
from ray_jobs.client.pieces import MAX_BODY, Piece, pieces, written
from ray_jobs.errors import UsageError

KEY_VARIABLE = "LYCEUM_API_KEY"
PAUSE_S = 0.1  # before the second try, at most; doubles with each
LONGEST_PAUSE_S = 2.0
SHORTEST_S = 0.001  # of a try
CONNECT_S = 5.0  # after which a connection is tried anew
FOUND_S = 10.0  # never heard of for so long, it is not there: a proxy that starts knows none
READY_S = 5.0  # who takes longer is not ready
URL_ADVICE = "expected such as http://host:8000/algebra-practice"
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=30)

T = TypeVar("T")
A = TypeVar("A", bound=Answer)
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Send:
    """Ask this."""

    method: str
    url: str
    content: bytes
    headers: Mapping[str, str]
    timeout: httpx.Timeout


@dataclass(frozen=True)
class Pause:
    """Wait so long."""

    seconds: float


Heard = httpx.Response | httpx.RequestError | None  # None after a pause
Steps = Generator[Send | Pause, Heard, T]


@dataclass(frozen=True)
class Reply:
    """A document that came back, and for what."""

    told: dict[str, Any]
    asked: Asked


class Calls:
    """What there is to ask of one service."""

    def __init__(
        self, url: str, *, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = _service(url)
        self.timeout_s = timeout_s
        self.clock = clock
        self.answered = False  # so that "not found" means: not just now

    def call(self, verb: str, request: Fields, *, explain: bool, answer: type[A]) -> Steps[A]:
        """One request, one answer."""
        reply = yield from self._asked("POST", _path(verb, explain), written(request))
        return parsed(answer, reply.told, reply.asked)

    def call_many(
        self, verb: str, requests: Iterable[Fields], *, explain: bool, answer: type[A]
    ) -> Steps[list[A]]:
        """An answer to each request, in their order."""
        answers: list[A] = []
        for piece in pieces(requests):
            for size, reply in (yield from self._whole(_path(verb, explain), piece)):
                answers += _each(answer, reply, size)
        return answers

    def feedback(self, told: Feedback) -> Steps[int]:
        """How many outcomes were kept."""
        reply = yield from self._asked("POST", "v1/feedback", written(told.as_json()))
        return _recorded(reply)

    def feedback_many(self, told: Iterable[Feedback]) -> Steps[int]:
        """How many outcomes were kept of all."""
        kept = 0
        for piece in pieces(one.as_json() for one in told):
            replies = yield from self._whole("v1/feedback", piece)
            kept += sum(_recorded(reply) for _, reply in replies)
        return kept

    def card(self) -> Steps[Card]:
        """What the service tells of its model."""
        reply = yield from self._asked("GET", "v1/model")
        return parsed(Card, reply.told, reply.asked)

    def ready(self) -> Steps[bool]:
        """Whether it answers now; asked once."""
        asked = Asked("GET", f"{self.url}/readyz", uuid.uuid4().hex)
        heard = yield send(asked, b"", min(self.timeout_s, READY_S))
        return isinstance(heard, httpx.Response) and heard.status_code == 200

    def _whole(self, path: str, piece: Piece) -> Steps[list[tuple[int, Reply]]]:
        """The replies to a piece, halved where it is more than the service takes at once."""
        try:
            reply = yield from self._asked("POST", path, piece.body, first=piece.first)
        except TooLarge:
            if len(piece) == 1:
                raise
        else:
            return [(len(piece), reply)]
        before, after = piece.halves()
        return (yield from self._whole(path, before)) + (yield from self._whole(path, after))

    def _asked(
        self, method: str, path: str, content: bytes = b"", *, first: int = 0
    ) -> Steps[Reply]:
        """The document that comes back, asked for until the deadline; raises LyceumApiError."""
        asked = Asked(method, f"{self.url}/{path}", uuid.uuid4().hex)
        if len(content) > MAX_BODY:
            # A server that refuses it while it is under way looks like one that is gone.
            raise TooLarge(asked.message(f"{len(content)} bytes; at most {MAX_BODY} at once"))
        begin_s, tries, there = self.clock(), 0, self.answered
        until_s = begin_s + self.timeout_s
        while True:
            heard = yield send(asked, content, until_s - self.clock())
            assert heard is not None
            tries += 1
            if isinstance(heard, httpx.Response) and heard.is_success:
                self.answered = True
                return _reply(heard, asked)
            error = _failed(heard, asked, first)
            there = there or isinstance(error, Unavailable | RateLimited)
            pause_s = _pause_s(error, tries)
            now_s = self.clock()
            again_s = until_s if there else min(until_s, begin_s + FOUND_S)
            if not error.retryable or now_s + pause_s >= again_s:
                error.add_note(f"asked {tries} times in {now_s - begin_s:.1f} s")
                raise error from (heard if isinstance(heard, Exception) else None)
            yield Pause(pause_s)


def send(asked: Asked, content: bytes, left_s: float) -> Send:
    """One try of a call, within what is left of its time."""
    headers = {"x-request-id": asked.request_id}
    if asked.method == "POST":
        headers["content-type"] = "application/json"
    left_s = max(left_s, SHORTEST_S)
    timeout = httpx.Timeout(left_s, connect=min(left_s, CONNECT_S))
    return Send(asked.method, asked.url, content, headers, timeout)


def headers(key: str | None) -> dict[str, str]:
    """What every request of a client carries; raises UsageError for a key that cannot be one."""
    told = (os.environ.get(KEY_VARIABLE, "") if key is None else key).strip()
    advice = f"pass key=..., or set {KEY_VARIABLE}; lyceum keys create makes one"
    if not told:
        raise UsageError(f"no key: {advice}")
    if not (told.isascii() and told.isprintable()) or " " in told:
        raise UsageError(f"the key holds what no key does (it is not shown here): {advice}")
    return {"authorization": f"Bearer {told}", "user-agent": f"lyceum/{__version__}"}


def _service(url: str) -> str:
    """The URL of a service without the slash behind; raises UsageError for one that is none."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"{url!r} is no URL ({error}); {URL_ADVICE}") from error
    if parts.scheme not in {"http", "https"} or not parts.host or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is not the URL of a service; {URL_ADVICE}")
    if parts.userinfo:
        raise UsageError(f"a URL with a password in it, at {parts.host}; {URL_ADVICE}, and a key")
    return str(parts).rstrip("/")


def _path(verb: str, explain: bool) -> str:
    return f"v1/{quote(verb, safe='')}" + ("?explain=true" if explain else "")


def _pause_s(error: LyceumApiError, tries: int) -> float:
    """As long as the server asks for; else up to twice as long each time, at random."""
    if error.retry_after_s:  # "at once" is no hint, and asked without a pause a server drowns
        return error.retry_after_s
    longest_s = min(PAUSE_S * 2.0 ** min(tries - 1, 10), LONGEST_PAUSE_S)
    return random.uniform(0, longest_s)  # noqa: S311 - spreads clients, hides nothing


def _failed(heard: httpx.Response | httpx.RequestError, asked: Asked, first: int) -> LyceumApiError:
    if isinstance(heard, httpx.RequestError):
        return unheard(heard, asked)
    return refused(heard, asked, first=first)


def _reply(response: httpx.Response, asked: Asked) -> Reply:
    came = response.headers.get("x-request-id", asked.request_id)
    asked = replace(asked, request_id=came)
    return Reply(document(response, asked), asked)


def _each(kind: type[A], reply: Reply, size: int) -> list[A]:
    """The answers of a piece of that size, each with what is told of all."""
    told = dict(reply.told)
    answers = told.pop("answers", None)
    whole = isinstance(answers, list) and all(isinstance(one, dict) for one in answers)
    if not whole or len(answers) != size:
        raise unexpected(reply.asked, f"there are not {size} answers to {size} requests")
    return [parsed(kind, {**told, **one}, reply.asked) for one in answers]


def _recorded(reply: Reply) -> int:
    kept = reply.told.get("recorded")
    if not isinstance(kept, int):
        raise unexpected(reply.asked, "the answer does not tell how many outcomes it keeps")
    return kept
