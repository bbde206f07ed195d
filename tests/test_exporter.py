"""What Prometheus is told is what was counted, each count once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.artifact import Artifact
from ray_jobs.serving.exporter import Exporter
from ray_jobs.serving.journal import Journal
from ray_jobs.serving.meters import Meters
from ray_jobs.serving.surface import House, Surface
from tests.surface_parts import KEY, SERVICE, asking, released, request


class Told:
    """Stands for one of Ray's metrics."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.seen: list[float] = []

    def inc(self, by: int, labels: dict[str, str]) -> None:
        assert (labels.pop("service"), labels.pop("version")) == (SERVICE, "7")
        self.counts[tuple(labels.values())] += by

    def observe(self, value: float, _labels: dict[str, str]) -> None:
        self.seen.append(value)


def test_each_request_is_told_once_however_often_it_is_collected(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(tmp_path), SERVICE, "l", most=2)
    app = Surface(model, released(model), KEY, house=House(journal=journal, meters=Meters()))
    exporter: Any = Exporter(app)
    for name in ("requests", "seconds", "batch", "predictions"):
        monkeypatch.setattr(exporter, name, Told())
    with asking(app) as ask:
        for body in (request(), {}, request()):
            ask("POST", "v1/predict", body)
        exporter.export()
        journal.flush()
        for body in (request(), request(), request()):
            ask("POST", "v1/predict", body)
        ask("GET", "nowhere")
    for _ in range(3):
        exporter.export()
    assert exporter.requests.counts == {
        ("predict", "200"): 5, ("predict", "422"): 1, ("none", "404"): 1
    }  # fmt: skip
    assert len(exporter.seconds.seen) == 7
    assert exporter.batch.seen == [1] * 5
    assert exporter.predictions.counts == {("written",): 2, ("dropped",): 1}
