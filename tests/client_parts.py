"""A service that plays a script of faults over a socket, and a clock that tests turn themselves."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ray_jobs.client import AsyncClient, Client

KEY = "lyc_0123456789ab_a-secret-that-nobody-sees"
STAMP = {"version": "7", "lineage": "07" * 16}
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Reply:
    """What the service does with one request."""

    status: int = 200
    body: Any = field(default_factory=lambda: {**STAMP, "prediction_id": "p-1", "level": 0.5})
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    fault: str = ""  # "reset" before the answer, or "cut" in the middle of it


def problem(status: int, *, detail: str = "what is", **more: Any) -> Reply:
    """A service's own refusal."""
    headers = more.pop("headers", {})
    body = {"type": "about:blank", "title": "A title", "status": status, "detail": detail, **more}
    return Reply(status, body, PROBLEM, headers)


def plain(status: int, **headers: str) -> Reply:
    """A refusal of the proxy in front."""
    return Reply(status, "no server is available", "text/plain", headers)


@dataclass(frozen=True)
class Request:
    """What the service was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    port: int  # of the client


@dataclass
class Played:
    """The service as it stands; after the last reply of the script it repeats that."""

    script: list[Reply]
    heard: list[Request] = field(default_factory=list)
    url: str = ""

    def next(self) -> Reply:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def playing(*script: Reply, port: int = 0) -> Iterator[Played]:
    """A service that answers so, one after the other."""
    played = Played(list(script))
    server = Server(("127.0.0.1", port), _handler(played))
    played.url = f"http://127.0.0.1:{server.server_address[1]}/algebra-practice"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield played
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _handler(played: Played) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._answer(json.loads(body))

        def _answer(self, body: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            port = self.client_address[1]
            played.heard.append(Request(self.command, self.path, headers, body, port))
            reply = played.next()
            if reply.fault == "reset":
                self._reset()
                return
            text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
            self.send_response(reply.status)
            for name, value in {"content-type": reply.kind, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            half = len(text) // 2 if reply.fault == "cut" else len(text)
            self.wfile.write(text[:half].encode())
            self.close_connection = reply.fault == "cut"

        def _reset(self) -> None:
            never = struct.pack("ii", 1, 0)  # closing sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, never)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - theirs
            """Nothing."""

    return Handler


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


class Asker:
    """A client of either kind, asked as if it were the sync one."""

    def __init__(self, kind: str, url: str, time: Clock, more: dict[str, Any]) -> None:
        self.runner = asyncio.Runner()
        more = {"key": KEY, "clock": time, **more}
        self.client: Client | AsyncClient
        if kind == "sync":
            self.client = Client(url, sleep=time.sleep, **more)
        else:
            self.client = AsyncClient(url, sleep=time.asleep, **more)

    def __call__(self, name: str, *args: Any, **more: Any) -> Any:
        told = getattr(self.client, name)(*args, **more)
        return self.runner.run(told) if asyncio.iscoroutine(told) else told

    def close(self) -> None:
        self("close" if isinstance(self.client, Client) else "aclose")
        self.runner.close()


Make = Callable[..., Asker]


@contextmanager
def askers(kind: str, clock: Clock) -> Iterator[Make]:
    """Clients of a kind, on a clock that stands still while nobody sleeps."""
    with ExitStack() as stack:

        def one(url: str, **more: Any) -> Asker:
            asker = Asker(kind, url, clock, more)
            stack.callback(asker.close)
            return asker

        yield one
