"""Where the time of an epoch goes: waiting for batches, exchanging gradients, and computing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Given = TypeVar("Given")


class Clock:
    """Runs through one epoch of one worker.

    A GPU is never waited for: its exchanges are timed by events on its own stream.
    Of a divided network what is exchanged within a step counts as computing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = time.perf_counter()
        self._data = self._communication = 0.0  # seconds
        self._events: list[tuple[torch.Event, torch.Event]] = []

    def waited_for(self, batches: Iterable[Given]) -> Iterator[Given]:
        """The same batches; what their maker makes us wait is time for data."""
        waiting = iter(batches)
        while True:
            begin = time.perf_counter()
            try:
                batch = next(waiting)
            except StopIteration:
                return
            finally:
                self._data += time.perf_counter() - begin
            yield batch

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """What happens within is communication."""
        if self._device.type == "cuda":
            pair = torch.Event(enable_timing=True), torch.Event(enable_timing=True)
            pair[0].record()
            yield
            pair[1].record()
            self._events.append(pair)
            return
        begin = time.perf_counter()
        yield
        self._communication += time.perf_counter() - begin

    def figures(self) -> dict[str, float]:
        """Seconds since the start by what they went to; call it when the device is done."""
        total = time.perf_counter() - self._begin
        exchanged = sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        communication = self._communication + exchanged
        return {
            "data_seconds": self._data,
            "communication_seconds": communication,
            "compute_seconds": max(0.0, total - self._data - communication),
        }
