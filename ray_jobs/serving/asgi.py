"""The few words of ASGI that a surface speaks: a body in, an answer out, start and stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ray_jobs.serving.problem import Problem

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[bytes, bytes]  # content type, body
Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"


async def body(receive: Receive, limit: int) -> bytes:
    """The whole body; raises Problem as soon as it is over the limit, in bytes."""
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise Problem(413, f"the body is over {limit} bytes; send it in parts")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def reply(send: Send, status: int, kind: bytes, data: bytes, headers: Headers = ()) -> None:
    """Send a whole answer at once."""
    size = str(len(data)).encode()
    told = [(b"content-type", kind), (b"content-length", size), *headers]
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
