"""What a replica counts of itself, cheaply, for whoever collects it every second or so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Meters:
    """Counts and measurements since they were last taken."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # (route, status)
    seconds: list[tuple[str, float]] = field(default_factory=list)  # (route, how long it took)
    batches: list[int] = field(default_factory=list)  # examples of each

    def answered(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.seconds.append((route, seconds))

    def taken(self) -> Meters:
        """What has been counted until now; it begins anew."""
        found = Meters(self.requests, self.seconds, self.batches)
        self.requests, self.seconds, self.batches = Counter(), [], []
        return found
