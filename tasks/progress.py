"""How a run tells where it is: log records that a person reads and the command line draws.

Each record carries `stage` and `state` beside its sentence, so a terminal can
show them as bars while Prefect and a plain log show the sentence.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ray_jobs.training.events import Event

log = logging.getLogger(__name__)

STAGES = (
    "ingest", "clean", "split", "describe", "train", "evaluate", "gate", "register", "publish",
)  # fmt: skip
ON_REQUEST = ("cold-start", "cross-validate", "tune", "score")
T = TypeVar("T")


@dataclass
class Progress:
    """The stages of one run, with the time each took and which came from the cache."""

    epochs: int
    timings_s: dict[str, float] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and tell of its beginning and end."""
        assert name in (*STAGES, *ON_REQUEST)
        begin = time.perf_counter()
        log.info("%s: started", name, extra=_extra(name, "started"))
        try:
            yield
        except BaseException:
            log.info("%s: failed", name, extra=_extra(name, "failed"))
            raise
        self.timings_s[name] = round(time.perf_counter() - begin, 2)
        kept = " (from cache)" if name in self.cached else ""
        text = "%s: done in %.1f s%s"
        log.info(text, name, self.timings_s[name], kept, extra=_extra(name, "done"))

    def kept(self, name: str, stage: Callable[[], tuple[T, bool]]) -> T:
        """Run a stage that may come from its cache."""
        with self.stage(name):
            result, cached = stage()
            if cached:
                self.cached.append(name)
        return result

    def skipped(self, name: str, why: str) -> None:
        """Tell that a stage has nothing to do."""
        self.timings_s[name] = 0.0
        log.info("%s: skipped, %s", name, why, extra=_extra(name, "done"))

    def epoch(self, event: Event) -> None:
        """Tell of an epoch that has ended."""
        if event.kind != "epoch":
            return
        names = ("train_loss", "validation_loss", "rows_per_s")
        figures = ", ".join(
            f"{name.replace('_', ' ')} {event.metrics[name]:,.4g}"
            for name in names
            if name in event.metrics
        )
        figures = ", ".join(filter(None, [figures, _spent(event.metrics)]))
        extra = {**_extra("train", "running"), "done": event.step / self.epochs}
        log.info("train: epoch %d of %d, %s", event.step, self.epochs, figures, extra=extra)

    def trial(self, told: str, share: float) -> None:
        """Tell of a trial that has ended, and which share of all has."""
        log.info("tune: %s", told, extra={**_extra("tune", "running"), "done": share})


def _spent(metrics: Mapping[str, float]) -> str:
    """Where the time of an epoch's steps went; nothing where that is not known."""
    parts = {w: metrics.get(f"{w}_seconds") for w in ("data", "compute", "communication")}
    known = {what: seconds for what, seconds in parts.items() if seconds is not None}
    total = sum(known.values())
    return ", ".join(f"{what} {seconds / total:.0%}" for what, seconds in known.items() if total)


def _extra(stage: str, state: str) -> dict[str, Any]:
    return {"stage": stage, "state": state}
