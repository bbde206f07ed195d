"""What a replica counts of itself, cheaply, for whoever collects it every second or so."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Meters:
    """Counts since the start, and measurements that nobody has taken yet.

    Requests write, and another thread reads: so counts are copied whole, and what
    is taken is taken one by one.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # (route, status)
    seconds: deque[tuple[str, float]] = field(default_factory=deque)  # (route, how long it took)
    batches: deque[int] = field(default_factory=deque)  # examples of each

    def answered(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.seconds.append((route, seconds))


def taken(measured: deque[T]) -> Iterator[T]:
    """What was measured until now, taken away."""
    for _ in range(len(measured)):
        yield measured.popleft()
