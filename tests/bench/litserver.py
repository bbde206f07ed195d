"""LitServe with our network, in processes of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from flows.platform import ports

BATCH, WAIT_S = 32, 0.002  # of those tried, the fastest here
START_LIMIT_S = 90.0


@contextmanager
def answers(model: Path) -> Iterator[int]:
    """The port where it answers, until the block ends."""
    port = ports.any_free("127.0.0.1")
    words = [str(model), str(port), str(BATCH), str(WAIT_S)]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.litapi", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_ready(port)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def _await_ready(port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not yet
        time.sleep(0.1)
    raise TimeoutError("LitServe did not start")
