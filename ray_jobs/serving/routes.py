"""What a route is: a path's method, what a key must allow, and what answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ray_jobs.serving.asgi import Answer, Call, Receive

Handler = Callable[[Call, Receive, str], Awaitable[Answer]]  # the last is the id of who calls


@dataclass(frozen=True)
class Route:
    """One path."""

    name: str  # in metrics
    method: str
    action: str  # empty: anybody may
    handler: Handler


def page(kind: bytes, data: bytes) -> Handler:
    """What answers the same at all times."""

    async def answered(_call: Call, _receive: Receive, _caller: str) -> Answer:
        return kind, data

    return answered
