"""Record: what a run tells MLflow, from its first epoch to its registered version."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from prefect import task

from ray_jobs import store
from ray_jobs.artifact import fetched
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.errors import UsageError
from ray_jobs.evaluation import plain_intervals
from ray_jobs.recipe import as_dict
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from ray_jobs.training import events
from tasks import connection, plots, provenance, tracking
from tasks import register as registry
from tasks.card import Facts, card
from tasks.crossing import Crossing
from tasks.describe import Described
from tasks.evaluate import Report
from tasks.gate import Verdict
from tasks.retry import RETRIES
from tasks.run import Run
from tasks.train import Model

RELEASE = "release"  # version tag: URI of the release on the store
DATA = "data"  # folder of a run: the report on its data


@dataclass(frozen=True)
class Registry:
    """The MLflow of a run: a client, and the address it talks to."""

    client: MlflowClient
    uri: str

    @classmethod
    def at(cls, settings: Settings) -> Registry:
        """That of an installation."""
        uri = connection.tracking_uri(settings)
        return cls(connection.connect(uri), uri)

    def champion(self, service: str) -> Release | None:
        """The release that serves now, by the registry."""
        return self.release(service, registry.CHAMPION)

    def release(self, service: str, which: str | int) -> Release | None:
        """The release of a version or an alias, or None."""
        found = registry.find(self.client, service, which)
        if found is not None and RELEASE not in found.tags:
            raise UsageError(
                f"version {found.version} of {service} is only half registered and cannot serve; "
                f"give the alias to another version: lyceum promote {service} VERSION"
            )
        return Release.load(found.tags[RELEASE]) if found else None

    def page(self, run_id: str, artifact: str = "") -> str | None:
        """The run, or a file of it, in a browser, where there is a server to show it."""
        return tracking.run_page(self.client, run_id, artifact)


def recipe_tags(run: Run) -> dict[str, str]:
    """By what an analyst finds whatever MLflow is told of a recipe."""
    return {
        "family": run.recipe.family,
        "service": run.recipe.service,
        "recipe": run.recipe.name,
        "spec": run.recipe.spec.name,
        "protocol": run.protocol.words,
    }


def opened(
    run: Run,
    mlflow: Registry,
    clean: CleanTable,
    splits: SplitTable,
    described: Described,
    lineage: str,
    begun: dict[str, str],
) -> str:
    """The id of the lineage's run, with parameters, data and tags, of where it `begun` too."""
    tags = {**provenance.code_tags(), **provenance.flow_tags(), **recipe_tags(run), **begun}
    run_id = tracking.open_run(
        mlflow.client,
        service=run.recipe.service,
        lineage=lineage,
        name=f"{run.recipe.spec.name}-{lineage[:8]}",
        artifacts=store.join(run.store, "mlflow"),
        params=as_dict(run.recipe),
        tags=tags,
    )
    tracking.log_data(mlflow.client, run_id, clean, splits)
    tracking.log_files(mlflow.client, run_id, DATA, [described.document, described.page])
    return run_id


def release_of(
    run: Run, model: Model, report: Report, lineage: str, clean: CleanTable, splits: SplitTable
) -> Release:
    """What a replica will be told, version still open."""
    metrics = report.as_dict()["candidate"]["metrics"]
    return Release(
        service=run.recipe.service,
        family=run.recipe.family,
        lineage=lineage,
        artifact=model.artifact,
        digest=model.digest,
        golden=report.golden,
        resources=as_dict(run.recipe.resources),
        card={
            "description": run.family.title,
            "protocol": run.protocol.words,
            "spec": as_dict(run.recipe.spec),
            "data": {"digest": clean.digest, **clean.counts},
            "metrics": metrics,
        },
        division=division(run, splits),
        parent=release_uri(run, run.parent) if run.parent else "",
        barred=run.protocol.barred,
    )


def release_uri(run: Run, release: Release) -> str:
    """Where a registered release lies on the store."""
    return store.join(run.store, "releases", release.service, f"{release.lineage}.json")


def division(run: Run, splits: SplitTable) -> dict[str, Any]:
    """What decides in which split of a service somebody is, and what of them is learnt."""
    how = run.recipe.split
    return {
        "delivered": splits.delivered,
        "test": how.test,
        "validation": how.validation,
        "until": how.until,
        "cut": splits.cut,
        # By which column somebody is known: the hash is of what stands there.
        run.family.group: getattr(run.recipe.columns, run.family.group, ""),
    }


@task(name="register", **RETRIES)
def register(
    run: Run,
    mlflow: Registry,
    *,
    run_id: str,
    facts: Facts,
    model: Model,
    report: Report,
    release: Release,
    verdict: Verdict,
) -> Release:
    """Log the evaluation and register the version, as challenger."""
    steps = events.read(model.events)
    tracking.log_evaluation(
        mlflow.client,
        run_id,
        report.candidate,
        others=report.others,
        differences=report.differences,
    )
    figures = plots.draw(
        report.candidate,
        others=report.others,
        events=steps,
        importance=report.importance,
        aside=run.protocol.barred,
    )
    tracking.log_figures(mlflow.client, run_id, figures)
    text = card(facts)
    mlflow.client.log_text(run_id, text, "model_card.md")
    importance = plain_intervals(report.importance)
    tracking.log_json(mlflow.client, run_id, "evaluation/importance.json", importance)
    tracking.log_json(mlflow.client, run_id, "gate.json", verdict.as_dict())
    version = _version(run, mlflow, run_id, text, model, report, release)
    numbered = replace(release, version=str(version.version))
    uri = release_uri(run, release)
    numbered.save(uri)
    tags = {RELEASE: uri, "gate": "passed" if verdict.passed else "failed"}
    for key, value in tags.items():
        mlflow.client.set_model_version_tag(release.service, numbered.version, key, value)
    return numbered


def crossed(mlflow: Registry, run_id: str, crossing: Crossing) -> None:
    """Log the figures over all folds, whatever becomes of the version."""
    tracking.log_crossing(mlflow.client, run_id, crossing.metrics, crossing.difference)
    tracking.log_json(mlflow.client, run_id, "evaluation/folds.json", crossing.as_dict())


def crown(mlflow: Registry, release: Release) -> None:
    """Make a registered release the champion of its service."""
    registry.crown(mlflow.client, release.service, int(release.version))


def _version(
    run: Run,
    mlflow: Registry,
    run_id: str,
    text: str,
    model: Model,
    report: Report,
    release: Release,
) -> registry.Version:
    with tempfile.TemporaryDirectory(prefix="lyceum-artifact-") as folder:
        candidate = registry.Candidate(
            service=release.service,
            family=release.family,
            run_id=run_id,
            lineage=release.lineage,
            artifact=model.artifact,
            folder=store.fetch(model.artifact, Path(folder) / "artifact"),
            digest=model.digest,
            spec=run.recipe.spec.name,
            protocol=run.protocol.words,
            data_digest=release.card["data"]["digest"],
            card=text,
            evaluation=report.candidate,
            parent=run.parent.lineage if run.parent else "",
        )
        vocabulary = fetched(model.artifact).vocabulary
        return registry.register(
            mlflow.client, candidate, api=run.family.api, vocabulary=vocabulary
        )


def facts_of(
    run: Run,
    clean: CleanTable,
    splits: SplitTable,
    model: Model,
    report: Report,
    lineage: str,
) -> Facts:
    """All that the model card tells."""
    training: dict[str, Any] = {k: asdict(model)[k] for k in ("workers", "epochs", "rows_per_s")}
    if run.parent is not None:
        training["share of the version before kept"] = run.recipe.start.kept
    return Facts(
        recipe=replace(run.recipe, budget=run.budget),
        title=run.family.title,
        words=run.family.words,
        protocol=run.protocol,
        data=clean,
        split=splits,
        evaluation=report.candidate,
        others=report.others,
        differences=report.differences,
        training=training,
        lineage=lineage,
        parent=f"version {run.parent.version} (`{run.parent.lineage}`)" if run.parent else "",
        code=provenance.code_tags(),
    )
