"""What services were asked, as their replicas count it: read off Ray's page of metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

LIMIT_S = 5.0
PREFIX = "ray_lyceum_"  # Ray's own, and ours


@dataclass
class Traffic:
    """The requests of one service since its replicas started."""

    requests: int = 0
    failed: int = 0  # answered 5xx
    refused: int = 0  # answered 4xx
    dropped: int = 0  # predictions that are in no log
    queue: int = 0  # positions that wait for the model
    model_age_s: float = math.inf  # of the replica that loaded its version last
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))  # seconds

    def quantile_ms(self, share: float) -> float | None:
        """The time within which that share was answered, as the buckets tell it."""
        total = self.buckets.get(math.inf, 0.0)
        if not total:
            return None
        low, before = 0.0, 0.0
        for high, count in sorted(self.buckets.items()):
            if count >= share * total:
                if math.isinf(high):
                    return 1000 * low
                within = (share * total - before) / (count - before) if count > before else 1.0
                return 1000 * (low + (high - low) * within)
            low, before = high, count
        return None

    def as_dict(self) -> dict[str, float | int | None]:
        """What a screen shows."""
        p50, p99 = self.quantile_ms(0.5), self.quantile_ms(0.99)
        return {
            "requests": self.requests,
            "failed": self.failed,
            "refused": self.refused,
            "p50_ms": None if p50 is None else round(p50, 1),
            "p99_ms": None if p99 is None else round(p99, 1),
            "queue": self.queue,
            "dropped": self.dropped,
            "model_age_s": None if math.isinf(self.model_age_s) else round(self.model_age_s),
        }


def traffic(url: str) -> dict[str, Traffic]:
    """By service; empty where the page does not answer."""
    try:
        page = httpx.get(url, timeout=LIMIT_S, trust_env=False)
    except httpx.TransportError:
        return {}
    families = text_string_to_metric_families(page.text) if page.is_success else ()
    return counted(s for f in families if f.name.startswith(PREFIX) for s in f.samples)


def counted(samples: Iterable[Sample]) -> dict[str, Traffic]:
    """The samples of all replicas together."""
    found: dict[str, Traffic] = defaultdict(Traffic)
    for sample in samples:
        labels = sample.labels
        if service := labels.get("service"):
            _add(found[service], sample.name.removeprefix(PREFIX), labels, sample.value)
    return dict(found)


def _add(to: Traffic, name: str, labels: dict[str, str], value: float) -> None:
    if name in {"requests", "requests_total"}:
        to.requests += int(value)
        to.failed += int(value) if labels["status"].startswith("5") else 0
        to.refused += int(value) if labels["status"].startswith("4") else 0
    elif name == "request_seconds_bucket":
        to.buckets[float(labels["le"])] += value
    elif name in {"predictions", "predictions_total"} and labels["fate"] == "dropped":
        to.dropped += int(value)
    elif name == "queue_positions":
        to.queue += int(value)
    elif name == "model_age_seconds":
        to.model_age_s = min(to.model_age_s, value)
