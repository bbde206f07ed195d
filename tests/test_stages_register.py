"""What MLflow holds of a run, however often it was killed on the way; a real registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import orjson
import pytest
from matplotlib.figure import Figure
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.tracking import MlflowClient

import ray_jobs
from ray_jobs.artifact import fetched
from ray_jobs.data.tables import read_parquet
from ray_jobs.recipe import as_dict
from ray_jobs.serving.release import Release, verify
from tasks import plots, record, register
from tasks.evaluate import predictions
from tasks.gate import Check, Verdict
from tasks.record import RELEASE, Registry
from tests.stages_parts import Told, in_process, planned, school, tell

# MLflow's own, not ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

PASSED = Verdict([Check("size", True, "1.0 MB; at most 500")])
FAILED = Verdict([Check("size", False, "501.0 MB; at most 500")])
CHANGES = ("create_", "delete_", "finalize_", "log_", "set_", "update_")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("school")
    school(folder)
    with in_process():
        yield tell(planned(folder))


@pytest.fixture(scope="module")
def registry(told: Told) -> Registry:
    return Registry.at(told.run.settings)


def registered(told: Told, at: Registry, verdict: Verdict = PASSED) -> Release:
    """A run opened and its model registered, as the pipeline does."""
    run_id = record.opened(told.run, at, told.clean, told.splits, told.described, told.lineage, {})
    return record.register.fn(
        told.run,
        at,
        run_id=run_id,
        facts=record.facts_of(
            told.run, told.clean, told.splits, told.model, told.report, told.lineage
        ),
        model=told.model,
        report=told.report,
        release=told.release,
        verdict=verdict,
    )


def served_as(told: Told, service: str) -> Told:
    """The same model as a service of its own."""
    run = replace(told.run, recipe=replace(told.run.recipe, service=service))
    return replace(told, run=run)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One empty plot instead of five that take a second."""
    monkeypatch.setattr(plots, "draw", lambda *_, **__: {"roc": Figure()})


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


@dataclass
class Mortal:
    """A client; every kind of change, counted within a run, kills the first run that makes it."""

    client: MlflowClient
    killers: set[tuple[str, int]]
    made: Counter[str]

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)
        if not name.startswith(CHANGES):
            return call
        self.made[name] += 1
        change = (name, self.made[name])
        if change in self.killers:
            return call
        self.killers.add(change)
        raise Killed(change)


def test_a_register_killed_before_every_change_in_turn_leaves_one_version_with_everything(
    told: Told, registry: Registry, undrawn: None
) -> None:
    ours, killers, release = served_as(told, "mortal"), set[tuple[str, int]](), None
    while release is None:
        mortal: Any = Mortal(registry.client, killers, Counter())
        try:
            release = registered(ours, Registry(mortal, registry.uri))
        except Killed:
            continue
    assert {"create_run", "create_model_version", "set_registered_model_alias"} <= {
        name for name, _ in killers
    }
    assert_whole(registry, ours, release)
    assert registered(ours, registry) == release


def assert_whole(registry: Registry, told: Told, release: Release) -> None:
    client, service = registry.client, told.run.recipe.service
    (version,) = client.search_model_versions(f"name = '{service}'")
    assert release == replace(told.release, version=str(version.version))
    assert release == Release.load(version.tags[RELEASE])
    tags = {"gate": "passed", "lineage": told.lineage, "artifact_digest": told.model.digest}
    assert tags.items() <= version.tags.items()
    assert registry.release(service, "challenger") == release
    experiment = client.get_experiment_by_name(service)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    run_id = str(run.info.run_id)
    assert run_id == version.run_id
    assert "mlflow.note.content" in run.data.tags
    assert all(len(client.get_metric_history(run_id, m)) == 1 for m in run.data.metrics)
    models = client.search_logged_models([experiment.experiment_id])
    (ready,) = (m for m in models if m.status == LoggedModelStatus.READY)
    assert ready.artifact_location == version.source
    assert run.outputs
    assert ready.model_id in {output.model_id for output in run.outputs.model_outputs}
    top = {f.path for f in client.list_artifacts(run_id)}
    assert top >= {"data", "evaluation", "gate.json", "model_card.md", "plots"}


@pytest.fixture(scope="module")
def release(told: Told, registry: Registry) -> Release:
    return registered(told, registry)


@pytest.fixture(scope="module")
def run(told: Told, registry: Registry, release: Release) -> Any:
    found = register.find(registry.client, release.service, "challenger")
    assert found is not None
    return registry.client.get_run(found.run_id)


def test_a_run_in_mlflow_says_what_the_report_says(told: Told, run: Any) -> None:
    metrics, report = run.data.metrics, told.report
    for name, figure in report.candidate.metrics.items():
        bounds = {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        assert bounds.items() <= metrics.items()
        other = report.others["baseline"].metrics[name].value
        gain = report.differences["baseline"][name].value
        assert metrics[f"of_baseline/{name}"] == other
        assert metrics[f"gain_over_baseline/{name}"] == gain
    expected = {
        "lineage": told.lineage, "data_digest": told.clean.digest, "service": "knowledge-smoke",
        "family": "knowledge", "recipe": "knowledge-smoke", "spec": "rasch",
        "protocol": told.run.protocol.words, "lyceum.version": ray_jobs.__version__,
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    assert run.data.params["spec.prior"] == "1.0"


def test_the_card_and_the_files_of_a_run_agree_with_the_report(
    told: Told, registry: Registry, run: Any, tmp_path: Path
) -> None:
    folder = Path(registry.client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    text = (folder / "model_card.md").read_text()
    version = registry.client.get_model_version("knowledge-smoke", "1")
    assert text == run.data.tags["mlflow.note.content"] == version.description
    for figure in told.report.candidate.metrics.values():
        assert f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]" in text
    for count in (told.clean.read, told.clean.kept, *told.clean.quarantined.values()):
        assert f"| {count:,} |" in text
    data = orjson.loads((folder / "data" / "report.json").read_bytes())
    assert data["splits"]["rows"] == told.splits.rows
    assert data == orjson.loads(Path(told.described.document).read_bytes())
    page = (folder / "data" / "report.html").read_text()
    assert page == Path(told.described.page).read_text()
    assert orjson.loads((folder / "gate.json").read_bytes()) == PASSED.as_dict()
    kept = orjson.loads((folder / "evaluation" / "evaluation.json").read_bytes())
    assert kept == told.report.as_dict()["candidate"]


def test_the_plots_of_a_run_show_its_rivals_and_its_epochs(
    told: Told, registry: Registry, run: Any, tmp_path: Path
) -> None:
    folder = Path(registry.client.download_artifacts(run.info.run_id, "plots", str(tmp_path)))
    assert (folder / "learning_curves.png").is_file()
    drawn = plots.roc({"candidate": told.report.candidate, **told.report.others})
    drawn.savefig(tmp_path / "roc.png", dpi=100)
    assert (tmp_path / "roc.png").read_bytes() == (folder / "roc.png").read_bytes()


def test_a_release_tells_the_figures_of_the_report_and_passes_its_own_requests(
    told: Told, release: Release
) -> None:
    assert release.card["metrics"] == told.report.as_dict()["candidate"]["metrics"]
    assert release.card["data"] == {"digest": told.clean.digest, **told.clean.counts}
    assert release.card["spec"] == {"name": "rasch", "prior": 1.0, "rounds": 3}
    assert release.resources == as_dict(told.run.recipe.resources)
    assert (release.lineage, release.version) == (told.lineage, "1")
    verify(fetched(release.artifact), release)


def test_what_mlflow_loads_predicts_what_was_evaluated(
    told: Told, registry: Registry, release: Release
) -> None:
    version = registry.client.get_model_version(release.service, release.version)
    test = read_parquet(told.splits.table("test"))
    frame = test.select("learner", "item", "skills", "correct", "time").to_pandas()
    frame.index = frame.index[::-1]
    model = mlflow.pyfunc.load_model(version.source)
    told_back = model.predict(frame)
    expected = predictions(fetched(told.model.artifact), test)
    assert told_back.index.equals(frame.index)
    np.testing.assert_allclose(told_back["probability"], expected, rtol=1e-5)
    with pytest.raises(MlflowException, match="item"):
        model.predict(frame.assign(item=1))


def test_a_version_is_champion_only_once_it_is_crowned(
    told: Told, registry: Registry, undrawn: None
) -> None:
    ours = served_as(told, "crowned")
    assert registry.champion("crowned") is None
    first = registered(ours, registry)
    assert registry.champion("crowned") is None
    record.crown(registry, first)
    assert registry.champion("crowned") == first
    second = registered(replace(ours, lineage="another"), registry)
    assert registry.champion("crowned") == first
    record.crown(registry, second)
    assert registry.champion("crowned") == second
    assert registry.release("crowned", 1) == first
    sources = {registry.client.get_model_version("crowned", str(v)).source for v in (1, 2)}
    assert len(sources) == 2
    assert registry.release("crowned", 3) is None


def test_a_version_says_what_the_gate_said_last(
    told: Told, registry: Registry, undrawn: None
) -> None:
    ours = served_as(told, "gated")
    for verdict, word in ((FAILED, "failed"), (PASSED, "passed")):
        release = registered(ours, registry, verdict)
        version = registry.client.get_model_version("gated", release.version)
        assert (release.version, version.tags["gate"]) == ("1", word)
        assert registry.champion("gated") is None


def test_of_two_versions_of_one_lineage_the_older_one_stays(
    told: Told, registry: Registry, undrawn: None
) -> None:
    ours = served_as(told, "twice")
    first = registered(ours, registry)
    lineage = {"lineage": told.lineage}
    registry.client.create_model_version("twice", told.model.artifact, tags=lineage)
    assert registered(ours, registry) == first
    assert registry.release("twice", "challenger") == first


def test_a_registry_that_is_away_is_not_one_without_a_champion() -> None:
    def away(*_: object) -> None:
        raise MlflowException("the database is locked", INTERNAL_ERROR)

    client: Any = SimpleNamespace(get_model_version_by_alias=away, get_model_version=away)
    for which in ("champion", 1):
        with pytest.raises(MlflowException, match="locked"):
            Registry(client, "").release("algebra", which)
