"""The story of a search: from raw files to the settings that did best on the validation split.

The stages before training are those of a run and come from the same cache. The
test split is looked at by nobody: a run with the best settings does that.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow.exceptions import MlflowException
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.holding import Ray, alone
from flows.request import planned, resolve
from ray_jobs import manifest
from ray_jobs import settings as installation
from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.training import room
from ray_jobs.training.events import Event
from ray_jobs.tuning.space import as_json, text
from ray_jobs.tuning.trials import FAILED, Trial, ranked
from tasks import connection, tracking, trials
from tasks.prepare import clean, ingest, split
from tasks.progress import Progress
from tasks.record import Registry
from tasks.run import Run
from tasks.tune import Plan, tune

log = logging.getLogger(__name__)

SHOWN = 5  # of the best trials, in Prefect and on a terminal


@flow(name="lyceum-tune", flow_run_name="tune {recipe}", validate_parameters=True)
def search(
    recipe: str,
    service: str | None = None,
    data: str | None = None,
    settings: dict[str, str] | None = None,
    searched: list[str] | None = None,
    count: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Search among the settings of a recipe; returns the report of the search.

    Args:
        settings: what stays fixed, as of the pipeline.
        searched: `key=low..high` and `key=a,b,c`; none: what the family suggests.
        count: trials.

    Raises LyceumError with what to do about it.
    """
    asked = Asked(recipe, service, data, settings or {}, seed)
    resolved = replace(resolve(recipe, service, data, settings or {}, None, seed), workers=1)
    plan = planned(resolved, settings or {}, searched or [], count)
    run = Run(resolved, installation.read())
    manifest.check(run.store)
    if not run.settings.ray_address:
        room.must_fit_here(resolved.resources, 1, run.settings.cpus)
    # It ends as other runs' locks do, so that nobody is erased meanwhile.
    with alone(run, "tune.run"), contextlib.closing(Ray(run)) as ray:
        story = Story(run, Plan(*plan), ray, asked)
        with connection.answering(story.mlflow.uri):
            return story.tell()


@dataclass(frozen=True)
class Asked:
    """What was asked for, in its own words."""

    recipe: str
    service: str | None
    data: str | None
    settings: Mapping[str, str]
    seed: int | None

    def command(self, best: Mapping[str, Any]) -> str:
        """The run of these settings, ready for a shell."""
        words = ["lyceum", "run", self.recipe]
        options = {"--service": self.service, "--data": self.data, "--seed": self.seed}
        for name, value in options.items():
            words += [] if value is None else [name, str(value)]
        chosen = {**self.settings, **{key: text(value) for key, value in best.items()}}
        for key, value in chosen.items():
            words += ["--set", f"{key}={value}"]
        return shlex.join(words)


@dataclass
class Told:
    """How far the search is, for who waits."""

    plan: Plan
    progress: Progress
    trials: dict[int, Trial] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        """Tell of each trial as it ends, with the best so far."""
        if event.kind == "trial":
            self.trials[event.step] = Trial(event.step, event.detail["settings"])
            return
        number = event.detail.get("trial")
        if number is None:
            return
        trial = self.trials[number]
        if event.kind == "epoch":
            losses = {**trial.losses, event.step: event.metrics["validation_loss"]}
            self.trials[number] = replace(trial, losses=losses)
        elif event.kind == "ended":
            self.trials[number] = replace(trial, end=event.detail["end"])
            self._say(self.trials[number], event.detail.get("error", ""))

    def _say(self, trial: Trial, error: str) -> None:
        ended = [t for t in self.trials.values() if t.end]
        how = f", {error}" if trial.end == FAILED else f", validation loss {_loss(trial)}"
        best = ranked(ended)[:1]
        beside = f"; best {_loss(best[0])}, trial {best[0].number}" if best else ""
        text = f"trial {trial.number} of {self.plan.trials} {trial.end} after epoch {trial.epochs}"
        self.progress.trial(f"{text}{how}{beside}", len(ended) / self.plan.trials)


class Story:
    """One search, stage by stage."""

    def __init__(self, run: Run, plan: Plan, ray: Ray, asked: Asked):
        self.run = run
        self.plan = plan
        self.ray = ray
        self.asked = asked
        self.mlflow = Registry.at(run.settings)
        self.progress = Progress(epochs=run.recipe.budget.epochs)

    def tell(self) -> dict[str, Any]:
        """Every stage in order; what MLflow knows of a search that failed says why."""
        kept = self.progress.kept
        snapshot = kept("ingest", lambda: ingest(self.run))
        table = kept("clean", lambda: clean(self.run, snapshot))
        splits = kept("split", lambda: split(self.run, table))
        lineage = self.plan.lineage(self.run, table, splits)
        run_id = trials.opened(self.run, self.mlflow, self.plan, table, splits, lineage)
        runs = trials.TrialRuns(self.run, self.mlflow, run_id, lineage)
        try:
            found = self.search(splits, lineage, runs)
        except BaseException as error:
            self.close_failed(run_id, runs, error)
            raise
        trials.close(self.mlflow, run_id, self.plan, found)
        report = self.report(table, lineage, found, run_id)
        tracking.log_json(self.mlflow.client, run_id, "report.json", report)
        key = f"{self.run.recipe.service.lower().replace('_', '-')}-search"
        create_markdown_artifact(markdown(report), key=key)
        return report

    def search(self, splits: SplitTable, lineage: str, runs: trials.TrialRuns) -> list[Trial]:
        """The tune stage, each trial told to MLflow as it goes."""
        told = Told(self.plan, self.progress)
        where = "; ".join(f"{key} {domain}" for key, domain in self.plan.space.items())
        log.info("tune: %d trials of %s", self.plan.trials, where)

        def heard(event: Event) -> None:
            runs.hear(event)
            told.hear(event)

        cluster: Callable[[], Cluster] = lambda: self.ray.cluster  # noqa: E731 - not yet joined
        return self.progress.kept(
            "tune", lambda: tune(self.run, self.plan, splits, lineage, cluster, heard)
        )

    def close_failed(self, run_id: str, runs: trials.TrialRuns, error: BaseException) -> None:
        """Leave word of the failure, where MLflow is not itself what failed."""
        try:
            runs.interrupted()
            tracking.close_run(self.mlflow.client, run_id, error=str(error) or type(error).__name__)
        except MlflowException as other:
            log.warning("MLflow could not be told of the failure: %s", other)

    def report(
        self, table: CleanTable, lineage: str, found: list[Trial], run_id: str
    ) -> dict[str, Any]:
        """Everything there is to say, as JSON values."""
        recipe, (best, *_) = self.run.recipe, ranked(found)
        page = self.mlflow.page(run_id)
        return {
            "service": recipe.service,
            "family": recipe.family,
            "recipe": self.asked.recipe,
            "spec": recipe.spec.name,
            "protocol": self.run.protocol.words,
            "lineage": lineage,
            "seed": recipe.seed,
            "space": as_json(self.plan.space),
            "data": {"digest": table.digest, **table.counts},
            "best": described(best),
            "command": self.asked.command(best.settings),
            "trials": [described(trial) for trial in found],
            "timings_s": self.progress.timings_s,
            "cached": self.progress.cached,
            "links": {"MLflow run": page} if page else {},
        }


def described(trial: Trial) -> dict[str, Any]:
    """A trial with the figure it is judged by."""
    return {**trial.as_dict(), "validation_loss": trial.loss, "best_epoch": trial.best_epoch}


def best_of(report: Mapping[str, Any]) -> list[list[str]]:
    """The best few trials of a report as rows of text: number, loss, epochs, end, settings."""
    found = ranked(Trial.from_dict({k: t[k] for k in TRIAL}) for t in report["trials"])
    keys = list(report["space"])
    return [
        [
            str(trial.number),
            _loss(trial),
            f"{trial.best_epoch} of {trial.epochs}",
            trial.end,
            *(text(trial.settings[key]) for key in keys),
        ]
        for trial in found[:SHOWN]
    ]


TRIAL = ("number", "settings", "losses", "end", "error", "seconds")
COLUMNS = ("trial", "validation loss", "best epoch", "end")


def markdown(report: Mapping[str, Any]) -> str:
    """A search as a page for Prefect: its best trials, and the command that trains the best."""
    header = [*COLUMNS, *report["space"]]
    rows = [header, ["---"] * len(header), *best_of(report)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    title = f"# {report['service']}: {len(report['trials'])} trials"
    protocol = f"Protocol {report['protocol']}."
    return "\n".join([title, "", *lines, "", protocol, "", "```", report["command"], "```", ""])


def _loss(trial: Trial) -> str:
    return "–" if trial.loss is None else f"{trial.loss:.4f}"
