"""What MLflow is told of a search: a run for it, and below that a run for each of its trials.

Everything may be told again: runs are found by their lineage, steps by their
number, so that a search which was killed leaves each trial once.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ray_jobs import store
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.errors import UsageError
from ray_jobs.recipe import as_dict
from ray_jobs.training.events import Event
from ray_jobs.tuning.space import text, tried
from ray_jobs.tuning.trials import FAILED, FINISHED, STOPPED, Trial, ranked
from tasks import provenance, tracking
from tasks.record import Registry, recipe_tags
from tasks.run import Run
from tasks.trialplots import draw
from tasks.tune import Plan

PARENT = "mlflow.parentRunId"  # by which MLflow's pages fold trials below their search
END = "trial.end"
NUMBER = "trial.number"
# Of those that MLflow has: what was stopped early is no failure, nor was it trained to its end.
STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}


def opened(
    run: Run, mlflow: Registry, plan: Plan, clean: CleanTable, splits: SplitTable, lineage: str
) -> str:
    """The id of the search's own run, with its space, data and fixed settings."""
    asked = {"trials": plan.trials, "search": {k: str(d) for k, d in plan.space.items()}}
    run_id = tracking.open_run(
        mlflow.client,
        service=run.recipe.service,
        lineage=lineage,
        name=f"search-{run.recipe.spec.name}-{lineage[:8]}",
        artifacts=store.join(run.store, "mlflow"),
        params={**as_dict(run.recipe), **asked},
        tags={
            **recipe_tags(run),
            **provenance.code_tags(),
            **provenance.flow_tags(),
            "kind": "search",
        },
    )
    tracking.log_data(mlflow.client, run_id, clean, splits)
    return run_id


class TrialRuns:
    """The runs of a search's trials, told of what happens as it happens."""

    def __init__(self, run: Run, mlflow: Registry, parent: str, lineage: str) -> None:
        self._run = run
        self._client = mlflow.client
        self._parent = parent
        self._lineage = lineage
        self._steps: dict[int, tuple[str, tracking.StepLog]] = {}  # of those that have not ended

    def hear(self, event: Event) -> None:
        """Tell MLflow of a trial that was begun, of an epoch of it, or of its end."""
        if event.kind == "trial":
            run_id = self._opened(event.step, event.detail["settings"])
            self._steps[event.step] = run_id, tracking.StepLog(self._client, run_id)
            return
        number = event.detail.get("trial")
        if number is None:
            return
        run_id, steps = self._steps[number]
        steps.log([event])
        if event.kind == "ended":
            self._close(run_id, event.detail)
            del self._steps[number]

    def interrupted(self) -> None:
        """Nobody runs those that have not ended; the search, run again, opens them again."""
        for run_id, _ in self._steps.values():
            self._client.set_terminated(run_id, status=STATUS[STOPPED])

    def _opened(self, number: int, settings: Mapping[str, Any]) -> str:
        recipe = self._run.recipe
        tags = {
            **recipe_tags(self._run),
            "kind": "trial",
            PARENT: self._parent,
            NUMBER: str(number),
        }
        return tracking.open_run(
            self._client,
            service=recipe.service,
            lineage=f"{self._lineage}-{number}",
            name=f"trial-{number}-{self._lineage[:8]}",
            artifacts=store.join(self._run.store, "mlflow"),
            params=self._params(settings),
            tags=tags,
        )

    def _params(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """How the trial learns, whether searched or fixed; as was tried, where nothing can be."""
        try:
            recipe = tried(self._run.recipe, settings)
        except UsageError:
            return dict(settings)
        return {n: as_dict(getattr(recipe, n)) for n in ("spec", "budget")} | {"seed": recipe.seed}

    def _close(self, run_id: str, detail: Mapping[str, Any]) -> None:
        self._client.set_tag(run_id, END, detail["end"])
        if error := detail.get("error"):
            self._client.set_tag(run_id, "error", str(error)[: tracking.TEXT_LENGTH])
        self._client.set_terminated(run_id, status=STATUS[detail["end"]])


def close(mlflow: Registry, run_id: str, plan: Plan, found: Sequence[Trial]) -> None:
    """What a search came to: its best settings and figure, the table of its trials, their plot."""
    best = ranked(found)[0]
    client = mlflow.client
    assert best.loss is not None
    for key, value in {"trial": best.number, **best.settings}.items():
        client.set_tag(run_id, f"best.{key}", text(value))
    ends = {f"trials/{end.replace(' ', '_')}": _count(found, end) for end in STATUS}
    figures = {"best/validation_loss": best.loss, "best/epoch": float(best.best_epoch)}
    tracking.log_once(client, run_id, {**figures, "trials/all": float(len(found)), **ends})
    tracking.log_json(client, run_id, "trials.json", [trial.as_dict() for trial in found])
    client.log_text(run_id, table(plan, found), "trials.csv")
    tracking.log_figures(client, run_id, draw(plan.space, found))
    tracking.close_run(client, run_id)


def table(plan: Plan, found: Sequence[Trial]) -> str:
    """All trials as CSV: the best first, those without a figure last."""
    order = ranked(found)
    rows = [*order, *(trial for trial in found if trial not in order)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, *plan.space, "error"])
    for trial in rows:
        facts = [trial.number, trial.end, trial.loss, trial.best_epoch, trial.epochs, trial.seconds]
        tried_ = [text(trial.settings[key]) for key in plan.space]
        writer.writerow([*("" if v is None else v for v in facts), *tried_, trial.error])
    return buffer.getvalue()


COLUMNS = ("trial", "end", "validation_loss", "best_epoch", "epochs", "seconds")


def _count(found: Sequence[Trial], end: str) -> float:
    return float(sum(trial.end == end for trial in found))
