"""What became of each trial, read off the events: the whole memory of a search.

Whoever starts a search again, and whoever looks at one, reads the same; nothing
else is kept of it, so that nothing else can be half-written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.training import events
from ray_jobs.training.events import Event
from ray_jobs.tuning.job import SearchJob, to_its_end

FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"


@dataclass(frozen=True)
class Trial:
    """One trial: what was tried, and how it went so far."""

    number: int  # from 1, in the order in which they were suggested
    settings: dict[str, Any]
    losses: dict[int, float] = field(default_factory=dict)  # of each epoch, on validation
    end: str = ""  # finished, stopped early, or failed; empty: it has not ended
    error: str = ""  # why it failed
    seconds: float = 0.0  # its epochs together

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return max(self.losses, default=0)

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights a training would keep; 0 where there is none."""
        return min(self.losses, key=lambda step: (self.losses[step], step), default=0)

    @property
    def loss(self) -> float | None:
        """The validation loss that it is judged by: that of its best epoch."""
        return self.losses.get(self.best_epoch)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; epochs in their order, without the gaps of keys that are text."""
        values = dataclasses.asdict(self)
        values["losses"] = [self.losses[step] for step in sorted(self.losses)]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        losses = dict(enumerate(values["losses"], start=1))
        return cls(**{**values, "losses": losses})


def known(job: SearchJob) -> list[Trial]:
    """Every trial of a search so far, by number."""
    suggested = {e.step: e for e in events.read(job.events) if e.kind == "trial"}
    return [
        told(number, event.detail["settings"], events.read(job.trial_events(number)))
        for number, event in sorted(suggested.items())
    ]


def told(number: int, settings: dict[str, Any], tale: Iterable[Event]) -> Trial:
    """A trial from its own events: each epoch once, as the last attempt had it."""
    tale = to_its_end(list(tale))
    epochs = events.by_step(tale)
    end = tale[-1].detail if tale and tale[-1].kind == "ended" else {}
    return Trial(
        number,
        settings,
        {step: epochs[step].metrics["validation_loss"] for step in sorted(epochs)},
        end=end.get("end", ""),
        error=end.get("error", ""),
        seconds=sum(event.metrics.get("seconds", 0.0) for event in epochs.values()),
    )


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """The best first: of those that were trained to their end, then of those stopped early.

    Whoever was stopped was worse at that epoch than one who went on. Failed ones
    have no place.
    """
    judged = [trial for trial in trials if trial.loss is not None and trial.end != FAILED]
    return sorted(judged, key=lambda t: (t.end != FINISHED, t.loss, t.number))
