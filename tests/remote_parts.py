"""What stands in for a platform: a small HTTP server, and a clock that waits for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Said = tuple[int, str, bytes]  # status, content type, body
Answer = Callable[[str, str, bytes], Said]  # (method, path, body)


class HangUpError(Exception):
    """Raised by an answer: the connection ends without a word."""


class Clock:
    """In place of the module `time`: its time passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0  # seconds

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server on a free port for as long as the block runs; its base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                status, kind, said = answer(self.command, self.path, body)
            except HangUpError:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = respond  # noqa: N815 - the standard library's words

        def log_message(self, *_: object) -> None:
            """Nothing: what was asked concerns nobody."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
