"""A client that costs little: requests over connections that stay open, each timed.

`python -m tests.bench.load PORT FILE CONNECTIONS SECONDS` sends the bytes of the file
again and again, as whole HTTP requests, for a time or until it is told to end (SIGTERM),
and prints JSON: how many answers of which status and which version there were, and when
each was asked (unix seconds) and how long it took.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

WARM_S = 0.5  # of answers that do not count
VERSION = b"x-lyceum-version: "


class Connection(asyncio.Protocol):
    """One connection: an answer read is the next request sent."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.held = b""
        self.since = 0.0
        self.asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.since, self.asking = time.perf_counter(), True
        self.transport.write(self.load.asked)

    def data_received(self, data: bytes) -> None:
        self.held += data
        head, separator, rest = self.held.partition(b"\r\n\r\n")
        if not separator:
            return
        told = head.lower()
        size = int(told.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(rest) < size:
            return
        self.held, self.asking = b"", False
        version = told.partition(VERSION)[2].partition(b"\r\n")[0].decode()
        self.load.answered(told[9:12].decode(), version, self.since)
        if self.load.over or b"connection: close" in told:
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, _error: Exception | None) -> None:
        if self.asking:
            self.load.answered("lost", "", self.since)
        if not self.load.over:
            self.load.connect()


class Load:
    """What came back."""

    def __init__(self, port: int, asked: bytes, seconds: float) -> None:
        self.port = port
        self.asked = asked
        self.begin = time.perf_counter() + WARM_S
        self.end = self.begin + seconds
        self.statuses: Counter[str] = Counter()
        self.versions: list[str] = []
        self.asked_s: list[float] = []
        self.taken_s: list[float] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.clock = time.time() - time.perf_counter()

    @property
    def over(self) -> bool:
        return time.perf_counter() >= self.end

    def stop(self) -> None:
        self.end = time.perf_counter()

    def answered(self, status: str, version: str, since: float) -> None:
        if self.begin <= since <= self.end:
            self.statuses[status] += 1
            self.versions.append(version)
            self.asked_s.append(self.clock + since)
            self.taken_s.append(time.perf_counter() - since)

    def connect(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _connect(self) -> None:
        since = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port)
        except OSError:
            self.answered("refused", "", since)
            await asyncio.sleep(0.05)
            if not self.over:
                self.connect()


async def loaded(load: Load, connections: int) -> None:
    """Ask until it is over."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
    for _ in range(connections):
        load.connect()
    while not load.over:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)  # for what is under way


def main() -> None:
    """Print what a load of some seconds gave."""
    port, file, connections, seconds = sys.argv[1:]
    load = Load(int(port), Path(file).read_bytes(), float(seconds))
    asyncio.run(loaded(load, int(connections)))
    told = {"statuses": load.statuses, "versions": load.versions}
    times = {"asked_s": load.asked_s, "taken_s": load.taken_s, "seconds": load.end - load.begin}
    print(json.dumps(told | times))


if __name__ == "__main__":
    main()
