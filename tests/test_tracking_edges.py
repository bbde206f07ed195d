"""What MLflow is told where others tell it too, where it keeps less, or where it is far away."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import polars as pl
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import sqlalchemy_store
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient

from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.intervals import Interval
from ray_jobs.settings import Settings
from ray_jobs.training.events import Event
from tasks import connection, tracking
from tests.judging import judged

# MLflow's own, not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    home = tmp_path_factory.mktemp("base") / "not there yet"
    return connection.connect(connection.tracking_uri(Settings(home=home)))


def opened(client: Any, lineage: str, **changes: Any) -> str:
    usual: dict[str, Any] = {
        "service": "algebra", "name": "test", "artifacts": "memory://runs", "params": {}, "tags": {}
    }  # fmt: skip
    return tracking.open_run(client, lineage=lineage, **{**usual, **changes})


@dataclass
class Late:
    """A client whose first look, whatever at, comes before somebody else's change."""

    client: MlflowClient
    blind: str

    def __getattr__(self, name: str) -> Any:
        if name == self.blind:
            self.blind = ""
            return lambda *_, **__: [] if name == "search_runs" else None
        return getattr(self.client, name)


@contextlib.contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> Iterator[None]:
    """Do something when MLflow has made its tables, and nobody has seen them yet."""

    class Made(SqlAlchemyStore):
        def __init__(self, *arguments: Any) -> None:
            monkeypatch.undo()
            super().__init__(*arguments)  # type: ignore[no-untyped-call]
            act()

    monkeypatch.setattr(sqlalchemy_store, "SqlAlchemyStore", Made)
    yield
    monkeypatch.undo()


def test_two_runs_that_make_the_database_at_once_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with meanwhile(monkeypatch, lambda: connection.connect(uri).create_experiment("first")):
        late = connection.connect(uri)
    assert late.get_experiment_by_name("first") is not None
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_database_that_could_not_be_finished_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(KeyboardInterrupt), meanwhile(monkeypatch, stop):
        connection.connect(uri)
    assert not list(tmp_path.iterdir())
    assert connection.connect(uri).search_experiments()


def test_two_flows_of_one_lineage_settle_on_the_older_run(client: MlflowClient) -> None:
    first = opened(client, "race")
    assert opened(Late(client, "search_runs"), "race") == first
    found = client.get_experiment_by_name("algebra")
    assert found is not None
    ours = "tags.lineage = 'race'"
    assert [r.info.run_id for r in client.search_runs([found.experiment_id], ours)] == [first]


def test_a_run_that_somebody_deleted_is_not_taken_up_again(client: MlflowClient) -> None:
    first = opened(client, "deleted")
    client.delete_run(first)
    assert opened(client, "deleted") != first


def test_two_first_flows_of_a_service_settle_on_one_experiment(client: MlflowClient) -> None:
    uri = "memory://runs/geometry"
    first = tracking.experiment(client, "geometry", uri)
    late: Any = Late(client, "get_experiment_by_name")
    assert tracking.experiment(late, "geometry", uri) == first
    with pytest.raises(MlflowException, match="name"):
        tracking.experiment(client, "", uri)


@pytest.mark.parametrize("remote", ["s3://bucket/lyceum/far", "memory://store/far"])
def test_files_of_a_remote_store_stay_there_and_local_ones_are_found_from_anywhere(
    client: MlflowClient, remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, asked, location in (
        (remote, remote, remote),
        (f"local {remote}", "store/near", (tmp_path / "store" / "near").as_uri()),
    ):
        found = client.get_experiment(tracking.experiment(client, name, asked))
        assert found.artifact_location == location
        # Without it MLflow's pages are laid out for language models.
        assert found.tags["mlflow.experimentKind"] == "custom_model_development"


def test_settings_are_all_there_however_many_and_cut_where_mlflow_would_refuse_them(
    client: MlflowClient,
) -> None:
    many = {"part": {f"s{i:03}": i for i in range(230)}, "long": "x" * 9000}
    run_id = opened(client, "many", params=many)
    params = client.get_run(run_id).data.params
    assert [params[f"part.s{i:03}"] for i in range(230)] == [str(i) for i in range(230)]
    assert params["long"] == "x" * 6000
    tracking.close_run(client, run_id, error="y" * 9000)
    assert client.get_run(run_id).data.tags["error"] == "y" * 6000


def test_a_run_taken_up_again_is_running_with_the_tags_of_now(client: MlflowClient) -> None:
    run_id = opened(client, "again", tags={"prefect.flow_run_id": "one"})
    tracking.close_run(client, run_id)
    opened(client, "again", tags={"prefect.flow_run_id": "two"})
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["prefect.flow_run_id"]) == ("RUNNING", "two")


def test_a_step_has_the_time_at_which_it_ended_and_other_events_are_none(
    client: MlflowClient,
) -> None:
    run_id = opened(client, "steps")
    end = Event("finished", 1, 2, {"rows_per_s": 5.0}, time=12.0)
    steps = [Event("epoch", 1, step, {"train_loss": 0.5}, time=10.5 + step) for step in (0, 1)]
    assert tracking.StepLog(client, run_id).log([*steps, end]) == 2
    history = client.get_metric_history(run_id, "epoch/train_loss")
    assert [(m.step, m.timestamp) for m in history] == [(0, 10500), (1, 11500)]
    assert set(client.get_run(run_id).data.metrics) == {"epoch/train_loss"}


def test_an_undefined_figure_is_left_out_of_the_figures_and_null_in_the_files(
    client: MlflowClient, tmp_path: Path
) -> None:
    run_id = opened(client, "undefined", service="local", artifacts=str(tmp_path / "store"))
    alone = {"auc": Interval(math.nan, math.nan, math.nan), "brier": Interval(0.2, math.nan, 0.3)}
    table = pl.DataFrame({"group": [0, 1], "target": [0, 1], "prediction": [0.5, 0.5]})
    found = replace(judged(table), metrics=alone)
    tracking.log_evaluation(client, run_id, found, others={"champion": found})
    metrics = client.get_run(run_id).data.metrics
    assert metrics == {"brier": 0.2, "brier_high": 0.3, "of_champion/brier": 0.2}
    folder = Path(client.download_artifacts(run_id, "evaluation"))
    for name in ("evaluation", "champion"):
        kept = orjson.loads((folder / f"{name}.json").read_bytes())
        assert kept["metrics"]["auc"] == {"value": None, "low": None, "high": None}


def test_the_splits_of_a_remote_store_are_named_with_their_own_counts(
    client: MlflowClient, tmp_path: Path
) -> None:
    names = ("train", "validation", "test")
    rows, scored, groups = (
        {name: base + i for i, name in enumerate(names)} for base in (100, 50, 10)
    )
    split = SplitTable("s3://bucket/split", False, rows, scored, groups, cut=None, held_back=0)
    clean = CleanTable("s3://bucket/clean", "d" * 64, 303, 303, {}, 0, 0, timed=True)
    run_id = opened(client, "remote data", service="near", artifacts=str(tmp_path / "store"))
    tracking.log_data(client, run_id, clean, split)
    inputs = client.get_run(run_id).inputs
    assert inputs is not None
    logged = {i.dataset.name: i for i in inputs.dataset_inputs}
    assert set(logged) == set(names)
    for name in names:
        data = logged[name].dataset
        assert (data.source_type, len(data.digest)) == ("s3", 16)
        assert orjson.loads(data.source) == {"uri": f"s3://bucket/split/{name}"}
        counted = {"rows": rows[name], "scored": scored[name], "groups": groups[name]}
        assert orjson.loads(data.profile or "") == counted
        assert [tag.value for tag in logged[name].tags] == [name]


def test_a_run_has_a_page_where_a_server_shows_it() -> None:
    run = SimpleNamespace(info=SimpleNamespace(experiment_id="4"))
    pages = [
        tracking.run_page(SimpleNamespace(tracking_uri=uri, get_run=lambda _: run), "r1")  # type: ignore[arg-type]
        for uri in ("http://here:5000/", "https://there", "sqlite:////home/mlflow.db")
    ]
    end = "#/experiments/4/runs/r1?workflowType=machine_learning"
    assert pages == [f"http://here:5000/{end}", f"https://there/{end}", None]


def test_a_named_server_is_told_and_otherwise_the_database_of_the_home(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    assert connection.tracking_uri(here) == f"sqlite:///{tmp_path}/mlflow.db"
    there = Settings(home=tmp_path, mlflow_tracking_uri="http://there:5000")
    assert connection.tracking_uri(there) == "http://there:5000"
