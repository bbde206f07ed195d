"""The notebook as Ray Tune knows a search: what is next, and who has ended."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from ray_jobs.tuning.notebook import Notebook


class Suggestions(Searcher):
    """Gives out the trials of a notebook, under Ray's names for them."""

    def __init__(self, notebook: Notebook, vocabulary: str) -> None:
        super().__init__(metric="best_loss", mode="min")
        self._notebook = notebook
        self._vocabulary = vocabulary
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:  # the settings, or FINISHED
        given = self._notebook.next()
        if given is None:
            return Searcher.FINISHED
        number, job = given
        self._numbers[trial_id] = number
        return {"trial": number, "job": job.save(), "vocabulary": self._vocabulary}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        number = self._numbers[trial_id]
        self._notebook.heard(number, result["epoch"], result["loss"])

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,  # noqa: ARG002 - its events tell more
        error: bool = False,
    ) -> None:
        number = self._numbers[trial_id]
        if error:
            self._notebook.lost(number)
        else:
            self._notebook.ended(number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the events are the record, and Ray need not keep another."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, since nothing was saved."""
