"""The few words of ASGI that a surface speaks: a call and its body in, an answer out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ray_jobs.serving.deadlines import Deadline
from ray_jobs.serving.problem import Problem

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]
Answer = tuple[bytes, bytes] | tuple[bytes, bytes, Headers]  # content type, body, more headers

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asks, but for its body."""

    method: str
    path: str  # below the service's prefix, without slashes around it
    query: bytes
    headers: dict[bytes, bytes]  # names in lower case; of repeated ones the last
    deadline: Deadline | None = None

    @classmethod
    def of(cls, scope: Message, prefix: str, deadline: Deadline) -> Call:
        path: str = scope["path"]
        below = path.removeprefix(prefix)
        query, headers = scope.get("query_string", b""), dict(scope.get("headers", ()))
        return cls(scope["method"], below.strip("/"), query, headers, deadline)

    @property
    def id(self) -> str:
        """The request's id: Serve gives one to whoever sends none, and tells it in the answer."""
        return self.headers.get(b"x-request-id", b"").decode("latin-1")


async def body(call: Call, receive: Receive, limit: int) -> bytes:
    """The whole body; raises Problem as soon as it is over the limit, in bytes."""
    _only_plain(call)
    parts, size = [], 0
    if call.deadline:
        call.deadline.awaits_body()
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise Problem(413, f"the body is over {limit} bytes; send it in parts")
        parts.append(part)
        if not message.get("more_body"):
            if call.deadline:
                call.deadline.has_arrived()
            return b"".join(parts)


def only_json(call: Call) -> None:
    """Raise Problem where a body says that it is something else than JSON."""
    kind = call.headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()
    if kind != JSON:
        told = kind.decode("latin-1")[:100]
        raise Problem(415, f"content-type is {told!r}; send JSON as content-type: application/json")


def _only_plain(call: Call) -> None:
    coding = call.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in {b"", b"identity"}:
        detail = f"content-encoding {coding.decode('latin-1')[:100]!r} is not known; send it plain"
        raise Problem(415, detail, headers=((b"accept-encoding", b"identity"),))


async def reply(send: Send, status: int, answer: Answer, headers: Headers = ()) -> None:
    """Send a whole answer at once."""
    kind, data, *more = answer
    size = str(len(data)).encode()
    told = [
        (b"content-type", kind),
        (b"content-length", size),
        *headers,
        *(more[0] if more else ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": data})


async def lifespan(receive: Receive, send: Send) -> None:
    """Agree to start and to stop; nothing waits for either."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
