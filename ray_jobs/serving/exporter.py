"""A replica's counts to Prometheus, through Ray's metrics: every second, off the requests' way."""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from typing import TYPE_CHECKING, Any

from ray.util.metrics import Counter, Gauge, Histogram

from ray_jobs.serving.meters import Meters, taken

if TYPE_CHECKING:
    from ray_jobs.serving.surface import Surface

PERIOD_S = 1.0
SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0]
EXAMPLES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 10240.0]
OF_SERVICE = ("service", "version")


class Exporter:
    """Metrics of one surface; Ray gives them the prefix `ray_`."""

    def __init__(self, surface: Surface):
        self.surface = surface
        self.since_s = time.time()
        self.requests = Counter(
            "lyceum_requests", "Requests answered", (*OF_SERVICE, "route", "status")
        )
        self.seconds = Histogram(
            "lyceum_request_seconds", "Time to answer, in seconds", SECONDS, (*OF_SERVICE, "route")
        )
        self.batch = Histogram("lyceum_batch_examples", "Examples of a batch", EXAMPLES, OF_SERVICE)
        self.gauges = {
            name: Gauge(f"lyceum_{name}", words, OF_SERVICE)
            for name, words in {
                "queue_positions": "Positions that wait for the model",
                "model_age_seconds": "Since this replica loaded its version",
                "keys_age_seconds": "Since the keys were read from the store",
            }.items()
        }
        self.predictions = Counter(
            "lyceum_predictions", "Answers logged, or dropped", (*OF_SERVICE, "fate")
        )
        self.told: Counts[Any] = Counts()  # to Ray, of what only grows
        self.labels = {
            "service": surface.release.service,
            "version": surface.release.version or "candidate",
        }
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def export(self) -> None:
        """Tell Ray what was counted since the last time."""
        house, labels = self.surface.house, self.labels
        if house.meters:
            self._measured(house.meters)
        self.gauges["queue_positions"].set(self.surface.batcher.waiting_cost, labels)
        self.gauges["model_age_seconds"].set(time.time() - self.since_s, labels)
        if house.door:
            self.gauges["keys_age_seconds"].set(house.door.ring.age_s, labels)
        if house.journal:
            self._grown(self.predictions, house.journal.written, fate="written")
            self._grown(self.predictions, house.journal.dropped, fate="dropped")

    def _measured(self, meters: Meters) -> None:
        for (route, status), count in dict(meters.requests).items():
            self._grown(self.requests, count, route=route, status=str(status))
        for route, seconds in taken(meters.seconds):
            self.seconds.observe(seconds, {**self.labels, "route": route})
        for examples in taken(meters.batches):
            self.batch.observe(examples, self.labels)

    def _grown(self, counter: Counter, now: int, **labels: str) -> None:
        """Tell by how much a count has grown since it was told last."""
        which = (counter, *labels.values())
        if now > self.told[which]:
            counter.inc(now - self.told[which], {**self.labels, **labels})
            self.told[which] = now

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self.export()
        self.export()
