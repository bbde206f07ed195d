"""Which trials are stopped early: Ray's asynchronous successive halving (ASHA, Li et al. 2020).

Ray's own names of trials are new in every process; here they go by their number
in the search, so that what was decided before a kill stays decided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from ray_jobs.training.events import Event

GRACE = 0.2  # of the epochs, before which no trial is stopped
REDUCTION = 3  # of the trials that reach a rung, one in so many goes on


class Rungs(ASHAScheduler):
    """ASHA over epochs, by the numbers of trials."""

    def __init__(self, epochs: int) -> None:
        super().__init__(
            time_attr="epoch",
            metric="best_loss",  # of the epochs so far: what a training would keep
            mode="min",
            max_t=epochs,
            grace_period=max(1, math.ceil(GRACE * epochs)),
            reduction_factor=REDUCTION,
        )
        self._numbers: set[int] = set()

    def replay(self, epochs: Iterable[tuple[int, Event]]) -> dict[int, int]:
        """Hear all that trials told before, as it was told; whom that stops, by its epoch."""
        stopped: dict[int, int] = {}
        best: dict[int, float] = {}
        nobody: Any = None  # runs them any more
        for number, event in sorted(epochs, key=lambda one: one[1].time):
            self._add(number, nobody)
            loss = event.metrics["validation_loss"]
            best[number] = min(loss, best.get(number, loss))
            result = {"epoch": event.step, "best_loss": best[number]}
            decision = super().on_trial_result(nobody, _named(number), result)
            if decision == TrialScheduler.STOP:
                stopped[number] = event.step
        return stopped

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._add(trial.config["trial"], tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        named = _named(trial.config["trial"])
        return str(super().on_trial_result(tune_controller, named, dict(result)))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        """Nothing is left to decide; its rungs keep what it told."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """The same of one that failed."""

    def _add(self, number: int, tune_controller: Any) -> None:
        if number not in self._numbers:
            self._numbers.add(number)
            super().on_trial_add(tune_controller, _named(number))


def _named(number: int) -> Any:
    """What ASHA asks of a trial."""
    return SimpleNamespace(trial_id=number)
