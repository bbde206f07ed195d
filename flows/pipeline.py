"""The story of a model: from raw files to a live, answered request.

One flow, a task per stage. References travel between stages, data does not;
each stage may be killed at any moment and taken up again from its manifest.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.platform import embedded
from flows.request import resolve
from ray_jobs import settings as installation
from ray_jobs.cluster import Cluster, joined
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.serving.release import Release
from ray_jobs.training.events import Event
from tasks import provenance, record, tracking
from tasks.evaluate import Report, evaluated
from tasks.gate import Verdict, gate
from tasks.prepare import clean, ingest, split
from tasks.progress import Progress
from tasks.publish import publish as go_live
from tasks.record import Registry
from tasks.report import Outcome, document, markdown
from tasks.run import Run
from tasks.train import Model, train


@flow(name="lyceum", flow_run_name="{recipe}", validate_parameters=True)
def pipeline(
    recipe: str,
    service: str | None = None,
    data: str | None = None,
    settings: dict[str, str] | None = None,
    workers: int | None = None,
    seed: int | None = None,
    publish: bool = True,
    truth: str = "",
) -> dict[str, Any]:
    """Run a recipe from its data to a live service; returns the report of the run.

    Args:
        recipe: name of a recipe, as `lyceum recipes` lists them.
        settings: dotted settings of the recipe, such as `{"budget.epochs": "3"}`.
        truth: folder of a family's sample, to report the best possible as well.

    Raises LyceumError with what to do about it.
    """
    resolved = resolve(recipe, service, data, settings or {}, workers, seed)
    run = Run(resolved, installation.read())
    with contextlib.closing(Ray(run)) as ray:
        return Story(run, ray, publish=publish, truth=truth).tell()


class Ray:
    """The run's Ray, joined when it is first needed and left when the run ends."""

    def __init__(self, run: Run):
        self._run = run
        self._stack = contextlib.ExitStack()

    @cached_property
    def cluster(self) -> Cluster:
        """Join the platform's Ray, or start one that nothing of outlives this run."""
        here = self._run.settings
        if here.ray_address:
            return self._stack.enter_context(joined(here))
        own = self._stack.enter_context(embedded(here))
        os.environ.update(own.environment)
        return self._stack.enter_context(joined(here, folder=own.ray_temp, port=own.http_port))

    def close(self) -> None:
        self._stack.close()


@dataclass(frozen=True)
class Prepared:
    """What the first three stages made."""

    clean: CleanTable
    splits: SplitTable
    lineage: str


class Story:
    """One run, stage by stage."""

    def __init__(self, run: Run, ray: Ray, *, publish: bool, truth: str):
        self.run = run
        self.ray = ray
        self.publish = publish
        self.truth = truth
        self.mlflow = Registry.of(run)
        self.progress = Progress(epochs=run.recipe.budget.epochs)

    def tell(self) -> dict[str, Any]:
        """Every stage in order; what MLflow knows of a failed run says why it failed."""
        prepared = self.prepare()
        run_id = record.opened(
            self.run, self.mlflow, prepared.clean, prepared.splits, prepared.lineage
        )
        try:
            outcome = self.model(prepared, run_id)
        except BaseException as error:
            tracking.close_run(self.mlflow.client, run_id, error=str(error) or type(error).__name__)
            raise
        tracking.close_run(self.mlflow.client, run_id)
        report = document(outcome)
        tracking.log_json(self.mlflow.client, run_id, "report.json", report)
        create_markdown_artifact(markdown(outcome), key=artifact_key(self.run.recipe.service))
        return report

    def prepare(self) -> Prepared:
        """Files to three tables."""
        kept = self.progress.kept
        snapshot = kept("ingest", lambda: ingest(self.run))
        table = kept("clean", lambda: clean(self.run, snapshot))
        splits = kept("split", lambda: split(self.run, table))
        return Prepared(table, splits, self.run.lineage(table, splits))

    def model(self, prepared: Prepared, run_id: str) -> Outcome:
        """Tables to a version, live or not."""
        model = self.train(prepared, run_id)
        champion = self.mlflow.champion(self.run.recipe.service)
        reigning = champion is not None and champion.lineage == prepared.lineage
        report = self.progress.kept(
            "evaluate",
            lambda: evaluated(
                self.run, prepared.splits, model, None if reigning else champion, self.truth
            ),
        )
        verdict: Verdict | None = None
        if reigning:
            assert champion is not None
            release = champion
            for stage in ("gate", "register"):
                self.progress.skipped(stage, f"version {release.version} is the champion already")
        else:
            verdict, release = self.judge(prepared, model, report, run_id)
        endpoint = self.live(release, verdict, champion)
        return Outcome(
            run=self.run,
            lineage=prepared.lineage,
            clean=prepared.clean,
            splits=prepared.splits,
            model=model,
            report=report,
            verdict=verdict,
            champion=champion,
            version=release.version,
            endpoint=endpoint,
            progress=self.progress,
            links=self.links(run_id, endpoint),
        )

    def train(self, prepared: Prepared, run_id: str) -> Model:
        """The train stage, each epoch told to MLflow as it ends."""
        steps = tracking.StepLog(self.mlflow.client, run_id)

        def heard(event: Event) -> None:
            steps.log([event])
            self.progress.epoch(event)

        cluster: Callable[[], Cluster] = lambda: self.ray.cluster  # noqa: E731 - not yet joined
        return self.progress.kept(
            "train", lambda: train(self.run, prepared.splits, prepared.lineage, cluster, heard)
        )

    def judge(
        self, prepared: Prepared, model: Model, report: Report, run_id: str
    ) -> tuple[Verdict, Release]:
        """Gate and register."""
        release = record.release_of(self.run, model, report, prepared.lineage, prepared.clean)
        with self.progress.stage("gate"):
            verdict = gate(self.run, report, release, self.ray.cluster)
        with self.progress.stage("register"):
            facts = record.facts_of(
                self.run, prepared.clean, prepared.splits, model, report, prepared.lineage
            )
            numbered = record.register(
                self.run,
                self.mlflow,
                run_id=run_id,
                facts=facts,
                model=model,
                report=report,
                release=release,
                verdict=verdict,
            )
        return verdict, numbered

    def live(
        self, release: Release, verdict: Verdict | None, champion: Release | None
    ) -> str | None:
        """Publish what passed, onto a Ray that outlives this run."""
        if verdict is not None and not verdict.passed:
            self.progress.skipped("publish", "the gate did not pass")
            return None
        if not self.publish or not self.run.settings.ray_address:
            why = "not asked for" if not self.publish else "no platform is up (lyceum up)"
            self.progress.skipped("publish", why)
            record.crown(self.mlflow, release)
            return None
        with self.progress.stage("publish"):
            endpoint = go_live(
                release,
                self.ray.cluster,
                key_file=str(self.run.settings.key_file),
                resources=self.run.recipe.resources,
                previous=champion,
            )
            # Only what answers is champion: a version that cannot go live changes nothing.
            record.crown(self.mlflow, release)
            return endpoint

    def links(self, run_id: str, endpoint: str | None) -> dict[str, str]:
        """Where a person can look further."""
        pages = {
            "service": f"{endpoint}/docs" if endpoint else None,
            "MLflow run": self.mlflow.page(run_id),
            "Prefect flow run": provenance.flow_tags().get("prefect.flow_run_url"),
        }
        return {name: url for name, url in pages.items() if url and url.startswith("http")}


def artifact_key(service: str) -> str:
    """A service's name in the letters that Prefect allows in keys."""
    return f"{service.lower().replace('_', '-')}-report"
