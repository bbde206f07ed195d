"""MLflow is told of a run once, whatever restarts, and what it keeps loads anywhere."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from ray_jobs import artifact
from ray_jobs.artifact import Artifact
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.errors import ContractError, UsageError
from ray_jobs.evaluation import Evaluation, compare
from ray_jobs.families import Protocol
from ray_jobs.families.knowledge import FAMILY
from ray_jobs.families.knowledge.frame import COLUMNS, frame
from ray_jobs.families.knowledge.networks.lstm import Lstm
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.predictor import predict
from ray_jobs.recipe import Recipe, as_dict
from ray_jobs.training.events import Event
from tasks import connection, plots, provenance, register, tracking
from tasks.card import Facts, card
from tests.judging import judged

# MLflow's own, not ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

ROOT = Path(__file__).parents[1]
VOCABULARY = Vocabulary(tuple(f"i{k}" for k in range(20)), ("add", "sub"))
EPOCHS = [
    Event("epoch", 1, s, {"train_loss": 0.7 - s / 10, "validation_loss": 0.7}) for s in (1, 2, 3)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracking home")  # with a space, as homes may have


@pytest.fixture(scope="module")
def client(home: Path) -> MlflowClient:
    return connection.connect(f"sqlite:///{home}/mlflow.db")


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "group": np.repeat(np.arange(40), 10),
            "target": rng.integers(0, 2, 400).astype(np.float32),
            "prediction": rng.random(400),
            "kind": ["common"] * 390 + ["rare"] * 10,
        }
    )
    return judged(rows, slices=["kind"])


@pytest.fixture(scope="module")
def model(home: Path) -> Artifact:
    torch.manual_seed(0)
    spec = Lstm()
    folder = home / "store" / "artifact"
    module = spec.build(VOCABULARY)
    artifact.write(
        folder, kind="knowledge", spec=spec, vocabulary=VOCABULARY, module=module, about={}
    )
    return artifact.read(folder)


@pytest.fixture
def unmoved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder in which nothing may appear: MLflow's global state would."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.iterdir())


def recipe() -> Recipe:
    return Recipe(name="test", family="knowledge", service="algebra", spec=Lstm())


def opened(client: MlflowClient, home: Path, lineage: str, service: str = "algebra") -> str:
    return tracking.open_run(
        client,
        service=service,
        lineage=lineage,
        name=f"test {lineage}",
        artifacts=str(home / "store" / "mlflow"),
        params=as_dict(recipe()),
        tags=provenance.code_tags(),
    )


def counted(home: Path) -> tuple[CleanTable, SplitTable]:
    clean = CleanTable(
        uri=str(home / "clean"),
        digest="c" * 64,
        read=100,
        kept=80,
        quarantined={"missing_item": 7, "invalid_time": 3},
        merged=4,
        repeats=6,
        timed=True,
    )
    counts = {"train": 60, "validation": 10, "test": 10}
    split = SplitTable(
        uri=str(home / "split"),
        delivered=False,
        rows=counts,
        scored=counts,
        groups=counts,
        cut=None,
        held_back=0,
    )
    return clean, split


def candidate(
    run_id: str, lineage: str, model: Artifact, home: Path, of: Evaluation
) -> register.Candidate:
    folder = home / "store" / "artifact"
    return register.Candidate(
        service="algebra",
        family="knowledge",
        run_id=run_id,
        lineage=lineage,
        artifact=str(folder),
        folder=folder,
        digest=model.digest,
        spec="lstm",
        protocol="N",
        data_digest="c" * 64,
        card="# A card",
        evaluation=of,
    )


def registered(
    client: MlflowClient, home: Path, lineage: str, model: Artifact, of: Evaluation
) -> register.Version:
    run_id = opened(client, home, lineage)
    what = candidate(run_id, lineage, model, home, of)
    return register.register(client, what, api=FAMILY.api, vocabulary=VOCABULARY)


def test_a_rerun_finds_its_run_and_another_lineage_gets_its_own(
    client: MlflowClient, home: Path, unmoved: Path
) -> None:
    first = opened(client, home, "a1")
    tracking.close_run(client, first, error="the node went away")
    assert opened(client, home, "a1") == first
    tracking.close_run(client, first)
    run = client.get_run(first)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    assert opened(client, home, "a2") != first


def test_a_failed_run_says_why(client: MlflowClient, home: Path) -> None:
    run_id = opened(client, home, "f1")
    tracking.close_run(client, run_id, error="not enough CPUs")
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "not enough CPUs")


def test_each_step_is_logged_once_whatever_restarts(client: MlflowClient, home: Path) -> None:
    run_id = opened(client, home, "s1")
    log = tracking.StepLog(client, run_id)
    log.log([Event("started", 1), *EPOCHS[:1]])
    log.log(EPOCHS[:2])
    again = tracking.StepLog(client, run_id)
    assert again.log([replace(e, attempt=2, time=e.time + 60) for e in EPOCHS]) == 2
    history = client.get_metric_history(run_id, "epoch/train_loss")
    assert [m.step for m in history] == [1, 2, 3]
    assert [m.value for m in history] == [e.metrics["train_loss"] for e in EPOCHS]


def test_an_experiment_keeps_its_files_on_the_store_and_comes_back_when_deleted(
    client: MlflowClient, home: Path
) -> None:
    opened(client, home, "e1", service="geometry")
    found = client.get_experiment_by_name("geometry")
    assert found is not None
    assert found.artifact_location == (home / "store" / "mlflow" / "geometry").as_uri()
    client.delete_experiment(found.experiment_id)
    opened(client, home, "e2", service="geometry")
    assert client.get_experiment(found.experiment_id).lifecycle_stage == "active"


def test_the_same_data_from_another_folder_is_the_same_run(
    client: MlflowClient, home: Path
) -> None:
    run_id = opened(client, home, "p1")
    moved = tracking.open_run(
        client,
        service="algebra",
        lineage="p1",
        name="moved",
        artifacts=str(home / "store" / "mlflow"),
        params={**as_dict(recipe()), "data": "elsewhere"},
        tags={},
    )
    assert moved == run_id
    params = client.get_run(run_id).data.params
    assert params["budget.epochs"] == str(recipe().budget.epochs)
    assert params["spec.name"] == "lstm"


def test_an_evaluation_logged_twice_is_there_once(
    client: MlflowClient, home: Path, evaluation: Evaluation
) -> None:
    run_id = opened(client, home, "v1")
    gain = {"baseline": compare(evaluation, evaluation)}
    for _ in range(2):
        tracking.log_evaluation(
            client, run_id, evaluation, others={"baseline": evaluation}, differences=gain
        )
        figures = plots.draw(evaluation, others={"baseline": evaluation}, events=EPOCHS)
        tracking.log_figures(client, run_id, figures)
    metrics = client.get_run(run_id).data.metrics
    assert metrics["auc"] == evaluation.metrics["auc"].value
    assert metrics["auc_low"] < metrics["auc"] < metrics["auc_high"]
    assert metrics["gain_over_baseline/auc"] == 0
    assert metrics["of_baseline/auc"] == metrics["auc"]
    assert len(client.get_metric_history(run_id, "auc")) == 1
    assert {f.path for f in client.list_artifacts(run_id, "plots")} == {
        f"plots/{name}.png"
        for name in ("roc", "calibration", "probabilities", "slices", "learning_curves")
    }
    folder = Path(client.download_artifacts(run_id, "evaluation"))
    read = Evaluation.from_dict(orjson.loads((folder / "evaluation.json").read_bytes()))
    assert read == evaluation
    table = pl.read_csv(io.BytesIO((folder / "slices.csv").read_bytes()))
    assert table["rows"].to_list() == [390, 10]
    assert table["auc"].is_null().to_list() == [False, True]


def test_the_data_of_a_run_comes_with_digest_and_counts_once(
    client: MlflowClient, home: Path
) -> None:
    run_id = opened(client, home, "d1")
    for _ in range(2):
        tracking.log_data(client, run_id, *counted(home))
    logged = client.get_run(run_id).inputs
    assert logged is not None
    inputs = logged.dataset_inputs
    assert {i.dataset.name for i in inputs} == {"train", "validation", "test"}
    assert len(inputs) == 3
    train = next(i.dataset for i in inputs if i.dataset.name == "train")
    assert orjson.loads(train.profile or "")["rows"] == 60
    assert ("c" * 64).startswith(train.digest)
    assert client.get_run(run_id).data.tags["data_digest"] == "c" * 64


def test_a_version_is_registered_once_per_lineage(
    client: MlflowClient, home: Path, model: Artifact, evaluation: Evaluation, unmoved: Path
) -> None:
    first = registered(client, home, "r1", model, evaluation)
    again = registered(client, home, "r1", model, evaluation)
    assert again == first
    assert (first.lineage, first.digest) == ("r1", model.digest)
    assert first.artifact == str(home / "store" / "artifact")
    assert registered(client, home, "r2", model, evaluation).version == first.version + 1
    assert register.resolve(client, "algebra", "challenger").lineage == "r2"


def test_a_half_registered_model_is_taken_up_and_not_logged_again(
    client: MlflowClient, home: Path, model: Artifact, evaluation: Evaluation
) -> None:
    version = registered(client, home, "h1", model, evaluation)
    client.delete_model_version("algebra", str(version.version))
    registered(client, home, "h1", model, evaluation)
    experiment = client.get_experiment_by_name("algebra")
    assert experiment is not None
    assert len(client.search_logged_models([experiment.experiment_id], "tags.lineage = 'h1'")) == 1


def test_a_new_champion_leaves_the_old_one_to_go_back_to(
    client: MlflowClient, home: Path, model: Artifact, evaluation: Evaluation
) -> None:
    old, new = (registered(client, home, name, model, evaluation) for name in ("c1", "c2"))
    register.crown(client, "algebra", old.version)
    register.crown(client, "algebra", new.version)
    register.crown(client, "algebra", new.version)
    assert register.resolve(client, "algebra", "champion").version == new.version
    assert register.resolve(client, "algebra", "previous").version == old.version


def test_an_unknown_version_or_service_is_told_with_what_there_is(
    client: MlflowClient, home: Path, model: Artifact, evaluation: Evaluation
) -> None:
    version = registered(client, home, "u1", model, evaluation).version
    with pytest.raises(UsageError, match=rf"no version '999'; there are .*{version}"):
        register.resolve(client, "algebra", 999)
    with pytest.raises(UsageError, match="nothing is registered"):
        register.resolve(client, "no-such-service", "champion")


SCRIPT = """
import sys
import mlflow
import pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/algebra@champion")
answers = pandas.read_json(sys.argv[2], orient="split", dtype=False)
print(model.predict(answers)["probability"].to_json())
"""


def test_a_script_that_knows_nothing_of_us_gets_what_our_predictor_gives(
    client: MlflowClient, home: Path, model: Artifact, evaluation: Evaluation, tmp_path: Path
) -> None:
    version = registered(client, home, "m1", model, evaluation)
    register.crown(client, "algebra", version.version)
    answers = pd.DataFrame(
        {
            "learner": ["b", "a", "a", "b", "a"],
            "item": ["i1", "i2", "never seen", "i3", "i4"],
            "skills": ["add", "add;sub", "", "sub", "add"],
            "correct": [1, 0, None, None, 1],
            "time": [10, 10, 20, 30, 40],
        },
        index=[7, 3, 5, 11, 2],
    )
    answers.to_json(tmp_path / "answers.json", orient="split")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", f"sqlite:///{home}/mlflow.db", "answers.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    given_back = orjson.loads(done.stdout.strip().splitlines()[-1])
    histories, rows = frame(answers, VOCABULARY)
    expected = np.empty(len(answers))
    expected[rows] = np.concatenate(predict(model, histories))
    assert list(given_back) == ["7", "3", "5", "11", "2"]
    np.testing.assert_allclose(list(given_back.values()), expected, rtol=1e-6)


@st.composite
def logs(draw: st.DrawFn) -> pd.DataFrame:
    """Learners' answers and questions, mixed."""
    row = st.fixed_dictionaries(
        {
            "learner": st.sampled_from("abc"),
            "item": st.sampled_from(["i1", "i2", "unseen"]),
            "skills": st.sampled_from(["add", "sub;add", "", "new"]),
            "correct": st.sampled_from([0.0, 1.0, None]),
        }
    )
    rows = draw(st.lists(row, min_size=1, max_size=12))
    return pd.DataFrame(rows, columns=[c.name for c in COLUMNS if c.name != "time"])


def probabilities(
    model: Artifact, rows: pd.DataFrame
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    histories, order = frame(rows, VOCABULARY)
    result = np.empty(len(rows))
    result[order] = np.concatenate(predict(model, histories))
    return result


@settings(max_examples=25, deadline=None)
@given(rows=logs(), data=st.data())
def test_a_row_is_predicted_from_its_learners_earlier_outcomes_alone(
    model: Artifact, rows: pd.DataFrame, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(rows) - 1))
    mine = rows["learner"] == rows["learner"][row]
    earlier = (rows.index < row) & rows["correct"].notna() & mine
    asked = pd.concat([rows[earlier], rows.loc[[row]].assign(correct=None)], ignore_index=True)
    alone = probabilities(model, asked)[-1]
    assert probabilities(model, rows)[row] == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": [2.0, 0.0, 1.0]}, "row 0: correct is 2.0; expected 0 to 1"),
        ({"correct": ["yes", 0.0, 1.0]}, "row 0: correct is 'yes'; expected a number"),
        ({"learner": ["a", None, "a"]}, "row 1: learner is empty"),
        ({"skills": [3, "add", "add"]}, "row 0: skills is 3"),
        ({"time": [30, None, 10]}, "row 2: its time is before"),
    ],
)
def test_a_wrong_frame_is_refused_by_row_and_column(
    change: dict[str, object], message: str
) -> None:
    rows = pd.DataFrame(
        {"learner": "a", "item": ["i1", "i2", "i3"], "skills": "add", "correct": 1.0}
    )
    with pytest.raises(ContractError, match=message):
        frame(rows.assign(**change), VOCABULARY)


def test_a_frame_without_a_needed_column_is_told_what_belongs_there() -> None:
    with pytest.raises(ContractError, match="no column 'item'; expected learner"):
        frame(pd.DataFrame({"learner": ["a"]}), VOCABULARY)


def test_the_card_tells_data_figures_limits_and_lineage(home: Path, evaluation: Evaluation) -> None:
    clean, split = counted(home)
    text = card(
        Facts(
            recipe=recipe(),
            title="Knowledge tracing",
            words=FAMILY.words,
            protocol=Protocol("N: from earlier answers", rows="answers"),
            data=clean,
            split=split,
            evaluation=evaluation,
            others={"baseline": evaluation},
            differences={"baseline": compare(evaluation, evaluation)},
            training={"workers": 2, "rows_per_s": 43210.0},
            lineage="1ineage",
            code=provenance.code_tags(),
        )
    )
    auc = evaluation.metrics["auc"]
    for part in (
        f"{auc.value:.4f} [{auc.low:.4f}, {auc.high:.4f}]",
        "no difference beyond chance",
        "| quarantined: missing item | 7 |",
        clean.digest,
        "N: from earlier answers",
        "for want of rows: kind = rare",
        "`1ineage`",
        "| rows per s | 43,210 |",
    ):
        assert part in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)


def test_code_tags_name_the_commit_of_the_checkout_they_lie_in() -> None:
    here = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    tags = provenance.code_tags()
    assert tags["lyceum.version"]
    if here.returncode == 0:
        assert tags["mlflow.source.git.commit"] == here.stdout.strip()
