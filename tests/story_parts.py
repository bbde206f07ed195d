"""The pipeline with small stages, over a real MLflow: what each says or how it fails is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows import pipeline as story
from ray_jobs.cluster import Cluster
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.split import SplitTable
from ray_jobs.evaluation import Evaluation, compare
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from ray_jobs.training.events import Event
from tasks import publish, record, register
from tasks.describe import Described, accounts, write
from tasks.evaluate import COLD, Report
from tasks.gate import Check, Verdict
from tasks.record import Registry
from tasks.run import Run
from tasks.start import Begun
from tasks.tracking import LINEAGE
from tasks.train import Model
from tests.judging import judged
from tests.live_parts import Serve

ROWS = {"train": 6, "validation": 1, "test": 2}
GOLDEN = [{"request": {"history": [], "candidates": [{"item": "a"}]}, "outcomes": [[0.5]]}]


class Stages:
    """Stages that take no time; `fails` names those that end otherwise."""

    def __init__(self, settings: Settings, serve: Serve) -> None:
        self.settings = settings
        self.serve = serve
        self.fails: dict[str, BaseException] = {}
        self.began: list[str] = []
        self.passes = True
        self.trained_before = False
        self.compared_with: str | None = None  # the champion's version, in the last evaluation
        self.described_beside: str | None = None  # the champion's version, at the last describing
        self.begins = False  # from the champion, rather than from nothing
        self.cold: Model | None = None  # beside which the last evaluation judged
        self.pages: dict[str, str] = {}  # what Prefect shows, by key
        self.rows = evaluation()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        stages = ("ingest", "clean", "split", "describe", "train", "evaluated", "gate")
        for name in (*stages, "begun", "trained"):
            patch.setattr(story, name, getattr(self, name))
        patch.setattr(record, "register", self.register)
        patch.setattr(story, "go_live", self.publish)
        patch.setattr(story, "create_markdown_artifact", self.show)

    def run(self, **asked: Any) -> dict[str, Any]:
        """The flow without Prefect's engine."""
        self.began.clear()
        report: dict[str, Any] = story.pipeline.fn("knowledge-smoke", "algebra", "logs", **asked)
        return report

    def ingest(self, _run: Run) -> tuple[Snapshot, bool]:
        self._begin("ingest")
        return Snapshot("/store/snapshot", "d" * 64, 10, {}, True, "learner", True), True

    def clean(self, _run: Run, snapshot: Snapshot) -> tuple[CleanTable, bool]:
        self._begin("clean")
        return CleanTable("/store/clean", snapshot.digest, 10, 9, {"conflict": 1}, 0, 0, True), True

    def split(self, _run: Run, _table: CleanTable) -> tuple[SplitTable, bool]:
        self._begin("split")
        return SplitTable("/store/split", False, ROWS, ROWS, ROWS, None, 0), False

    def describe(
        self,
        run: Run,
        snapshot: Snapshot,
        table: CleanTable,
        _splits: SplitTable,
        champion: Release | None,
    ) -> tuple[Described, bool]:
        self._begin("describe")
        self.described_beside = champion.version if champion else None
        return write(accounts(run, snapshot, table), uri=f"{run.store}/described"), False

    def begun(self, run: Run, mlflow: Registry, *_tables: object) -> Begun:
        champion = mlflow.champion(run.recipe.service) if self.begins else None
        return Begun(champion, "so it was told")

    def trained(
        self, run: Run, _splits: SplitTable, lineage: str, *_how: object
    ) -> tuple[Model, bool]:
        self._begin("cold-start")
        assert run.parent is None
        return Model("/store/cold", lineage, "/store/events", 1, 9, 5.0, 18.0), False

    def train(
        self,
        _run: Run,
        _splits: SplitTable,
        lineage: str,
        cluster: Callable[[], Cluster],
        on_event: Callable[[Event], None],
    ) -> tuple[Model, bool]:
        if not self.trained_before:
            assert cluster().services == self.serve.url
        for step in (1, 2):
            on_event(Event("epoch", 1, step, {"train_loss": 1 / step}))
        self._begin("train")
        return Model("/store/model", lineage, "/store/events", 1, 2, 5.0), self.trained_before

    def evaluated(
        self,
        _run: Run,
        _splits: SplitTable,
        _model: Model,
        champion: Release | None,
        _truth: str,
        cold: Model | None,
    ) -> tuple[Report, bool]:
        self._begin("evaluate")
        self.cold = cold
        self.compared_with = champion.version if champion else None
        others = {"baseline": self.rows} | ({"champion": self.rows} if champion else {})
        others |= {COLD: self.rows} if cold else {}
        gains = {name: compare(self.rows, other) for name, other in others.items()}
        return Report(self.rows, others, gains, GOLDEN, None, 1.0), False

    def gate(
        self, _run: Run, _report: Report, _crossing: None, release: Release, cluster: Cluster
    ) -> Verdict:
        self._begin("gate")
        assert (cluster.services, release.version) == (self.serve.url, "")
        return Verdict([Check("size", self.passes, "1 MB")])

    def register(
        self, run: Run, mlflow: Registry, *, run_id: str, release: Release, **_facts: Any
    ) -> Release:
        """A version in the real registry, without a model."""
        self._begin("register")
        if release.service not in {m.name for m in mlflow.client.search_registered_models()}:
            mlflow.client.create_registered_model(release.service, {"family": release.family})
        uri = record.release_uri(run, release)
        tags = {record.RELEASE: uri, LINEAGE: release.lineage}
        made = mlflow.client.create_model_version(
            release.service, source=run.store, run_id=run_id, tags=tags
        )
        numbered = Release(**{**vars(release), "version": str(made.version)})
        numbered.save(uri)
        mlflow.client.set_registered_model_alias(
            release.service, register.CHALLENGER, numbered.version
        )
        return numbered

    def publish(self, release: Release, cluster: Cluster, **how: Any) -> str:
        self._begin("publish")
        return publish.publish.fn(release, cluster, **how)

    def show(self, text: str, key: str) -> None:
        self.pages[key] = text

    def _begin(self, stage: str) -> None:
        self.began.append(stage)
        if stage in self.fails:
            raise self.fails[stage]


def evaluation() -> Evaluation:
    """A model that is right as often as it says."""
    rng = np.random.default_rng(0)
    prediction = rng.random(200)
    target = (rng.random(200) < prediction).astype(np.float32)
    rows = {"group": np.repeat(np.arange(20), 10), "target": target, "prediction": prediction}
    return judged(pl.DataFrame(rows), slices=[])


def installed(
    folder: Path, serve: Serve, patch: pytest.MonkeyPatch, *, lasting: bool = True
) -> Stages:
    """Stages on an installation of its own, with a Ray that lasts unless told otherwise."""
    settings = Settings(
        home=folder / "home",
        key_file=folder / "key",
        http_port=serve.port,
        ray_address="127.0.0.1:1" if lasting else "",
    )
    patch.setenv("LYCEUM_HOME", str(settings.home))
    patch.setenv("LYCEUM_KEY_FILE", str(settings.key_file))
    patch.setenv("LYCEUM_HTTP_PORT", str(settings.http_port))
    patch.setenv("RAY_ADDRESS", settings.ray_address)
    stages = Stages(settings, serve)
    stages.install(patch)
    return stages
