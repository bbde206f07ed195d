"""The search's own record while it runs: which trial is next, and what is written down of each.

Written to the events before it counts: a trial is noted before it starts, and its
end when it is known, so that a kill in between leaves something to go on from.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from ray_jobs import store
from ray_jobs.errors import UsageError
from ray_jobs.training import events
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.tuning import trials
from ray_jobs.tuning.job import SearchJob
from ray_jobs.tuning.suggest import suggested
from ray_jobs.tuning.trials import FAILED, FINISHED, STOPPED, Trial

logger = logging.getLogger(__name__)


class Notebook:
    """All trials so far, by number; those that had not ended when it is opened go first."""

    def __init__(self, job: SearchJob, attempt: int) -> None:
        self._job = job
        self._attempt = attempt
        self.trials = {trial.number: trial for trial in trials.known(job)}
        for trial in list(self.trials.values()):
            if not trial.end and trial.epochs >= self._epochs(trial):
                self._end(trial.number, FINISHED)
        self._waiting = [t.number for t in self.trials.values() if not t.end]

    @property
    def is_full(self) -> bool:
        """Whether every trial has ended."""
        return self.left == 0

    @property
    def left(self) -> int:
        """Trials that are yet to be run, or to be run on."""
        return len(self._waiting) + self._job.trials - len(self.trials)

    def next(self) -> tuple[int, TrainJob] | None:
        """The next trial and its training; None where all have been given out."""
        if self._waiting:
            number = self._waiting.pop(0)
            return number, self._job.trial(number, self.trials[number].settings)
        while len(self.trials) < self._job.trials:
            number = self._noted()
            try:
                return number, self._job.trial(number, self.trials[number].settings)
            except UsageError as error:  # such as heads that do not divide the width
                self._end(number, FAILED, str(error))
        return None

    def heard(self, number: int, epoch: int, loss: float) -> None:
        """An epoch has ended; it stands in the trial's own events already."""
        trial = self.trials[number]
        self.trials[number] = replace(trial, losses={**trial.losses, epoch: loss})

    def ended(self, number: int) -> None:
        """A trial is over: what its events tell says how."""
        job, trial = self._job, self.trials[number]
        tale = events.read(job.trial_events(number))
        trial = self.trials[number] = trials.told(number, trial.settings, tale)
        if trial.epochs >= self._epochs(trial):
            self._end(number, FINISHED)
        elif tale and tale[-1].kind == "failed":
            self._end(number, FAILED, str(tale[-1].detail["error"]))
        else:
            self._end(number, STOPPED)

    def lost(self, number: int) -> None:
        """A trial's workers died, one after another."""
        tale = events.read(self._job.trial_events(number))
        said = next((e.detail["error"] for e in reversed(tale) if e.kind == "failed"), "")
        self._end(number, FAILED, str(said or "its workers died, and none said why"))

    def stopped_at(self, number: int, epoch: int) -> None:
        """A trial that was told to stop at an epoch, if it came no further since."""
        if number in self._waiting and self.trials[number].epochs == epoch:
            self._waiting.remove(number)
            self._end(number, STOPPED)

    def _noted(self) -> int:
        job = self._job
        number = max(self.trials, default=0) + 1
        settings = suggested(
            job.domains,
            job.recipe,
            self.trials.values(),
            number=number,
            trials=job.trials,
            seed=job.seed,
        )
        noted = Event("trial", self._attempt, number, detail={"settings": settings})
        events.append(job.events, noted)
        self.trials[number] = Trial(number, settings)
        return number

    def _end(self, number: int, end: str, error: str = "") -> None:
        uri, trial = self._job.trial_events(number), self.trials[number]
        detail = {"end": end, **({"error": error} if error else {})}
        events.append(uri, Event("ended", events.last_attempt(uri), trial.epochs, detail=detail))
        store.remove(store.join(self._job.folder(number), "checkpoints"))
        self.trials[number] = replace(trial, end=end, error=error)
        logger.info("trial %d %s after epoch %d: %s", number, end, trial.epochs, trial.loss)

    def _epochs(self, trial: Trial) -> int:
        """How many epochs a trial is to have."""
        if hasattr(self._job.recipe.spec, "fit"):
            return 1
        return int(trial.settings.get("budget.epochs", self._job.budget.epochs))
