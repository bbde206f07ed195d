"""The story of a model: from raw files to a live, answered request.

One flow, a task per stage. References travel between stages, data does not;
each stage may be killed at any moment and taken up again from its manifest.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import Any

from mlflow.exceptions import MlflowException
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows import audit
from flows.holding import Ray, alone
from flows.request import resolve
from ray_jobs import manifest
from ray_jobs import settings as installation
from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.serving.release import Release
from ray_jobs.serving.site import Site
from ray_jobs.training import room
from ray_jobs.training.events import Event
from tasks import connection, provenance, record, tracking
from tasks import register as registry
from tasks.crossing import Crossing, cross_validate
from tasks.describe import Described, describe
from tasks.evaluate import Report, evaluated
from tasks.gate import Verdict, gate
from tasks.prepare import clean, ingest, split
from tasks.progress import Progress
from tasks.publish import publish as go_live
from tasks.record import Registry
from tasks.report import Outcome, document, markdown
from tasks.run import Run
from tasks.start import Begun, begun, from_nothing
from tasks.train import Model, train, trained, workers_of

log = logging.getLogger(__name__)


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
    manifest.check(run.store)
    if not run.settings.ray_address:
        room.must_fit_here(resolved.resources, workers_of(run), run.settings.cpus)
    with alone(run, "run"), contextlib.closing(Ray(run)) as ray:
        story = Story(run, ray, publish=publish, truth=truth)
        with connection.answering(story.mlflow.uri):
            return story.tell()


@dataclass(frozen=True)
class Judged:
    """What came of a model, and whom it was compared with."""

    report: Report
    verdict: Verdict | None  # None: it is the champion already
    release: Release
    champion: Release | None


@dataclass(frozen=True)
class Prepared:
    """What the stages before training made."""

    clean: CleanTable
    splits: SplitTable
    described: Described
    begun: Begun
    lineage: str


class Story:
    """One run, stage by stage."""

    def __init__(self, run: Run, ray: Ray, *, publish: bool, truth: str):
        self.run = run
        self.ray = ray
        self.publish = publish
        self.truth = truth
        self.mlflow = Registry.at(run.settings)
        self.progress = Progress(epochs=1)

    def tell(self) -> dict[str, Any]:
        """Every stage in order; what MLflow knows of a failed run says why it failed."""
        prepared = self.prepare()
        run_id = record.opened(
            self.run,
            self.mlflow,
            prepared.clean,
            prepared.splits,
            prepared.described,
            prepared.lineage,
            prepared.begun.tags,
        )
        try:
            self.show_data(prepared.described, run_id)
            outcome = self.model(prepared, run_id)
        except BaseException as error:
            self.close_failed(run_id, error)
            raise
        tracking.close_run(self.mlflow.client, run_id)
        report = document(outcome)
        tracking.log_json(self.mlflow.client, run_id, "report.json", report)
        create_markdown_artifact(markdown(outcome), key=artifact_key(self.run.recipe.service))
        return report

    def show_data(self, described: Described, run_id: str) -> None:
        """The data's main counts in Prefect, with the way to its report."""
        page = self.mlflow.page(run_id, f"{record.DATA}/report.html")
        link = f"[The whole report]({page})" if page else f"The whole report: `{described.page}`"
        key = artifact_key(self.run.recipe.service, "data")
        create_markdown_artifact(f"{described.summary}\n\n{link}\n", key=key)

    def close_failed(self, run_id: str, error: BaseException) -> None:
        """Leave word of the failure, where MLflow is not itself what failed."""
        try:
            tracking.close_run(self.mlflow.client, run_id, error=str(error) or type(error).__name__)
        except MlflowException as other:
            log.warning("MLflow could not be told of the failure: %s", other)

    def prepare(self) -> Prepared:
        """Files to three tables, and a report on them."""
        kept = self.progress.kept
        snapshot = kept("ingest", lambda: ingest(self.run))
        table = kept("clean", lambda: clean(self.run, snapshot))
        splits = kept("split", lambda: split(self.run, table))
        champion = self.mlflow.champion(self.run.recipe.service)
        described = kept("describe", lambda: describe(self.run, snapshot, table, splits, champion))
        start = begun(self.run, self.mlflow, table, splits)
        self.run = replace(self.run, parent=start.parent)
        if not hasattr(self.run.recipe.spec, "fit"):
            self.progress.epochs = self.run.budget.epochs
        return Prepared(table, splits, described, start, self.run.lineage(table, splits))

    def model(self, prepared: Prepared, run_id: str) -> Outcome:
        """Tables to a version, live or not."""
        model = self.train(prepared, run_id)
        cold = self.train_cold(prepared)
        crossing = self.cross_validate(prepared, run_id)
        while True:
            judged = self.judged(prepared, model, cold, crossing, run_id)
            with alone(self.run, "live"):
                if self.mlflow.champion(self.run.recipe.service) == judged.champion:
                    endpoint = self.live(judged)
                    break
            log.info("gate: the champion was changed meanwhile; judging again beside the new one")
        return Outcome(
            run=self.run,
            lineage=prepared.lineage,
            clean=prepared.clean,
            splits=prepared.splits,
            begun=prepared.begun,
            model=model,
            cold=cold,
            report=judged.report,
            crossing=crossing,
            verdict=judged.verdict,
            champion=judged.champion,
            version=judged.release.version,
            endpoint=endpoint,
            progress=self.progress,
            links=self.links(run_id, endpoint),
        )

    def cluster(self) -> Cluster:
        """The run's Ray, which is joined when it is first needed."""
        return self.ray.cluster

    def train(self, prepared: Prepared, run_id: str) -> Model:
        """The train stage, each epoch told to MLflow as it ends."""
        steps = tracking.StepLog(self.mlflow.client, run_id)

        def heard(event: Event) -> None:
            steps.log([event])
            self.progress.epoch(event)

        return self.progress.kept(
            "train", lambda: train(self.run, prepared.splits, prepared.lineage, self.cluster, heard)
        )

    def train_cold(self, prepared: Prepared) -> Model | None:
        """The same recipe trained from nothing, where its start is to be compared with that."""
        if self.run.parent is None or not self.run.recipe.start.compared:
            return None
        run, splits = from_nothing(self.run), prepared.splits
        lineage = run.lineage(prepared.clean, splits)
        return self.progress.kept(
            "cold-start", lambda: trained(run, splits, lineage, self.cluster, lambda _: None)
        )

    def cross_validate(self, prepared: Prepared, run_id: str) -> Crossing | None:
        """A model per fold, where the recipe asks for folds; each begins from nothing.

        A champion has seen learners of every fold.
        """
        if not self.run.recipe.split.folds:
            return None
        run, table = from_nothing(self.run), prepared.clean
        lineage = run.lineage(table, prepared.splits)
        crossing = self.progress.kept(
            "cross-validate", lambda: cross_validate(run, table, lineage, self.cluster)
        )
        record.crossed(self.mlflow, run_id, crossing)
        return crossing

    def judged(
        self,
        prepared: Prepared,
        model: Model,
        cold: Model | None,
        crossing: Crossing | None,
        run_id: str,
    ) -> Judged:
        """Evaluate, gate and register, beside the champion of this moment."""
        champion = self.mlflow.champion(self.run.recipe.service)
        reigning = champion is not None and champion.lineage == prepared.lineage
        other = None if reigning else champion
        report = self.progress.kept(
            "evaluate",
            lambda: evaluated(self.run, prepared.splits, model, other, self.truth, cold),
        )
        if reigning:
            assert champion is not None
            for stage in ("gate", "register"):
                self.progress.skipped(stage, f"version {champion.version} is the champion already")
            return Judged(report, None, champion, champion)
        release = record.release_of(
            self.run, model, report, prepared.lineage, prepared.clean, prepared.splits
        )
        with self.progress.stage("gate"):
            verdict = gate(self.run, report, crossing, release, self.ray.cluster)
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
        return Judged(report, verdict, numbered, champion)

    def live(self, judged: Judged) -> str | None:
        """Publish what passed, onto a Ray that outlives this run."""
        if judged.verdict is not None and not judged.verdict.passed:
            self.progress.skipped("publish", "the gate did not pass")
            return None
        if not self.publish or not self.run.settings.ray_address:
            why = "not asked for" if not self.publish else "no platform is up (lyceum up)"
            self.progress.skipped("publish", why)
            record.crown(self.mlflow, judged.release)
            return None
        here, release = self.run.settings, judged.release
        number, lineage = int(release.version), release.lineage
        with (
            self.progress.stage("publish"),
            audit.record(here, "publish", release.service, version=number, lineage=lineage),
        ):
            endpoint = go_live(
                release,
                self.ray.cluster,
                site=Site.of(here),
                resources=self.run.recipe.resources,
                previous=judged.champion,
            )
            # Only what answers is champion: a version that cannot go live changes nothing.
            record.crown(self.mlflow, release)
            registry.went_live(self.mlflow.client, release.service, number)
            return endpoint

    def links(self, run_id: str, endpoint: str | None) -> dict[str, str]:
        """Where a person can look further."""
        pages = {
            "service": f"{endpoint}/docs" if endpoint else None,
            "MLflow run": self.mlflow.page(run_id),
            "data report": self.mlflow.page(run_id, f"{record.DATA}/report.html"),
            "Prefect flow run": provenance.flow_tags().get("prefect.flow_run_url"),
        }
        return {name: url for name, url in pages.items() if url and url.startswith("http")}


def artifact_key(service: str, of: str = "report") -> str:
    """A service's name in the letters that Prefect allows in keys."""
    return f"{service.lower().replace('_', '-')}-{of}"
