"""The story of a search: what is looked at, what MLflow has of it, and what it ends with.

Here each trial is trained in this process, one after the other, where Ray Tune would
run them; stages, store, training and MLflow are real.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from flows import search as story
from flows.cli.options import parsed as pairs
from flows.cli.tuning import show
from flows.platform.locks import nobody_runs
from flows.request import planned, resolve
from ray_jobs import store
from ray_jobs.cluster import Cluster
from ray_jobs.errors import TrainingError, UsageError
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.settings import Settings
from ray_jobs.training import events, room, submit
from ray_jobs.training.events import Event
from ray_jobs.training.splits import Splits, tables
from ray_jobs.tuning import trial as worker
from ray_jobs.tuning import trials
from ray_jobs.tuning.job import SearchJob
from ray_jobs.tuning.notebook import Notebook
from ray_jobs.tuning.space import current
from ray_jobs.tuning.trials import FINISHED
from tasks.run import Run
from tasks.trials import END, PARENT
from tasks.tune import Plan
from tests.registry_parts import connected
from tests.stages_parts import cluster, school
from tests.test_tasks import clean_table, split_table

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

FIXED = {"spec.neighbours": "0", "budget.epochs": "2", "budget.batch_cost": "256"}
SEARCHED = ["spec.width=4,8", "spec.dropout=0..0.5", "budget.learning_rate=1e-3..1e-1"]


class Tune:
    """Where Ray Tune would run a search: a trial after the other, and as many as a kill leaves."""

    def __init__(self) -> None:
        self.lives = 100  # trials that are trained before somebody interrupts
        self.trained: list[int] = []

    def wait(
        self, job: SearchJob, _id: str, _address: str, on_event: Callable[[Event], None]
    ) -> None:
        test = store.local_path(job.train).with_name("test")
        away = test.rename(test.with_name("away"))  # a search that looked at it would fail
        try:
            self._search(job, on_event)
        finally:
            away.rename(test)

    def _search(self, job: SearchJob, on_event: Callable[[Event], None]) -> None:
        first = job.trial(0, {})
        Splits.seen(first, tables(job.train)).note_vocabulary(job.vocabulary)
        notebook, follower = Notebook(job, events.next_attempt(job.events)), job.follower()
        while (given := notebook.next()) is not None:
            number, training = given
            if len(self.trained) == self.lives:
                raise KeyboardInterrupt
            worker.learn({"job": training.save(), "vocabulary": job.vocabulary})
            self.trained.append(number)
            for event in follower.poll():
                on_event(event)
            notebook.ended(number)
        for event in follower.poll():
            on_event(event)
        if not trials.ranked(trials.known(job)):
            raise TrainingError("none of them came to a figure")


class Alone:
    """A run's Ray that nobody joins."""

    def __init__(self, _run: Any) -> None:
        self.cluster: Cluster = cluster()

    def close(self) -> None:
        pass


@pytest.fixture
def tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tune]:
    school(tmp_path)
    stand_in = Tune()
    pages: list[str] = []
    for name in ("ingest", "clean", "split", "tune"):
        monkeypatch.setattr(story, name, getattr(story, name).fn)
    monkeypatch.setattr(story, "Ray", Alone)
    monkeypatch.setattr(story, "create_markdown_artifact", lambda _text, key: pages.append(key))
    monkeypatch.setattr(submit, "submit", lambda job, _address: job.save())
    monkeypatch.setattr(submit, "wait", stand_in.wait)
    monkeypatch.setattr(room, "nodes", lambda: [{"CPU": 2.0}])
    monkeypatch.setattr(worker, "_report", lambda _epoch, _loss, _best: None)
    monkeypatch.setenv("LYCEUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LYCEUM_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    threads = torch.get_num_threads()
    yield stand_in
    torch.set_num_threads(threads)
    assert set(pages) <= {"knowledge-search", "algebra-search"}


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return connected(Settings(home=tmp_path / "home"))


def searched(folder: Path, **asked: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "recipe": "knowledge", "data": str(folder / "logs"), "settings": FIXED,
        "searched": SEARCHED, "count": 3, "seed": 5,
    }  # fmt: skip
    report: dict[str, Any] = story.search.fn(**{**given, **asked})
    return report


def runs(client: MlflowClient) -> tuple[MlflowRun, dict[int, MlflowRun]]:
    """The search's own run, and those of its trials by number."""
    ids = [e.experiment_id for e in client.search_experiments()]
    found = list(client.search_runs(ids))
    (parent,) = [run for run in found if PARENT not in run.data.tags]
    below = [run for run in found if PARENT in run.data.tags]
    numbered = {int(run.data.tags["trial.number"]): run for run in below}
    assert len(numbered) == len(below), "a trial stands there twice"
    assert {run.data.tags[PARENT] for run in below} <= {parent.info.run_id}
    return parent, numbered


def test_a_search_ends_with_the_best_and_mlflow_has_it_all_once(
    tune: Tune, tmp_path: Path, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    report = searched(tmp_path, service="algebra")
    again = searched(tmp_path, service="algebra")
    assert tune.trained == [1, 2, 3], "what is over is not done again"
    assert again["cached"] == ["ingest", "clean", "split", "tune"]
    assert again["trials"] == report["trials"]
    losses = [trial["validation_loss"] for trial in report["trials"]]
    assert report["best"]["validation_loss"] == min(losses)
    ready_to_run(report, str(tmp_path / "logs"))
    show(report)
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == report["command"]
    assert f"protocol {report['protocol']}" in out
    assert f"Protocol {report['protocol']}." in story.markdown(report)
    parent, below = runs(client)
    told_of_search(client, parent, report)
    for trial in report["trials"]:
        told_of(client, below[trial["number"]], trial)


def ready_to_run(report: dict[str, Any], data: str) -> None:
    """The command a search ends with is one that the command line takes, and means the best."""
    lyceum, run, name, *words = shlex.split(report["command"])
    assert (lyceum, run, name) == ("lyceum", "run", "knowledge")
    given = list(zip(words[::2], words[1::2], strict=True))
    options, fixed = dict(given), pairs([value for option, value in given if option == "--set"])
    assert (options["--service"], options["--seed"]) == ("algebra", "5")
    best = resolve(name, options["--service"], options["--data"], fixed, None, 5)
    assert (best.data, best.budget.epochs) == (data, 2)
    assert {key: current(best, key) for key in report["space"]} == report["best"]["settings"]


def told_of_search(client: MlflowClient, parent: MlflowRun, report: dict[str, Any]) -> None:
    best = report["best"]
    assert parent.data.params["search.spec.width"] == "4, 8"
    assert parent.data.params["trials"] == "3"
    assert parent.data.tags["best.trial"] == str(best["number"])
    assert parent.data.tags["best.spec.width"] == str(best["settings"]["spec.width"])
    assert parent.data.metrics["best/validation_loss"] == best["validation_loss"]
    assert parent.data.metrics["trials/finished"] == 3
    assert parent.info.status == "FINISHED"
    rows = list(csv.DictReader(artifact(client, parent, "trials.csv").decode().splitlines()))
    assert int(rows[0]["trial"]) == best["number"]
    assert [float(row["validation_loss"]) for row in rows] == sorted(
        trial["validation_loss"] for trial in report["trials"]
    )
    assert orjson.loads(artifact(client, parent, "trials.json"))[0]["number"] == 1
    for name in ("trials", "settings"):
        assert artifact(client, parent, f"plots/{name}.png").startswith(b"\x89PNG")


def told_of(client: MlflowClient, run: MlflowRun, trial: dict[str, Any]) -> None:
    history = client.get_metric_history(run.info.run_id, "epoch/validation_loss")
    assert [(m.step, m.value) for m in history] == list(enumerate(trial["losses"], start=1))
    assert (run.info.status, run.data.tags[END]) == ("FINISHED", FINISHED)
    assert {k: run.data.params[k] for k in trial["settings"]} == {
        k: str(v) for k, v in trial["settings"].items()
    }
    assert run.data.params["budget.epochs"] == "2"


def artifact(client: MlflowClient, run: MlflowRun, path: str) -> bytes:
    return Path(client.download_artifacts(run.info.run_id, path)).read_bytes()


def test_a_search_that_is_interrupted_goes_on_and_ends_as_it_would_have(
    tune: Tune, tmp_path: Path, client: MlflowClient
) -> None:
    tune.lives = 1
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path)
    parent, below = runs(client)
    assert (parent.info.status, parent.data.tags["error"]) == ("FAILED", "KeyboardInterrupt")
    assert {run.info.status for run in below.values()} <= {"KILLED"}
    tune.lives = 100
    report = searched(tmp_path)
    assert tune.trained == [1, 2, 3]
    parent, below = runs(client)
    assert (parent.info.status, "error" in parent.data.tags) == ("FINISHED", False)
    for trial in report["trials"]:
        told_of(client, below[trial["number"]], trial)


def test_a_trial_that_fails_is_told_of_and_the_search_goes_on(
    tune: Tune, tmp_path: Path, client: MlflowClient
) -> None:
    report = searched(tmp_path, searched=["budget.learning_rate=5e-3,1e30"], count=4)
    ends = {trial["number"]: trial["end"] for trial in report["trials"]}
    assert set(ends.values()) == {"finished", "failed"}
    assert report["best"]["settings"] == {"budget.learning_rate": 5e-3}
    _, below = runs(client)
    for number, end in ends.items():
        run = below[number]
        assert (run.data.tags[END], run.info.status) == (end, end.upper())
        assert ("loss is" in run.data.tags.get("error", "")) == (end == "failed")


def test_a_search_without_a_single_figure_fails_and_says_why(
    tune: Tune, tmp_path: Path, client: MlflowClient
) -> None:
    with pytest.raises(TrainingError, match="none of them"):
        searched(tmp_path, searched=["budget.learning_rate=1e30,1e31"], count=2)
    parent, below = runs(client)
    assert (parent.info.status, parent.data.tags["error"]) == (
        "FAILED",
        "none of them came to a figure",
    )
    assert {run.info.status for run in below.values()} == {"FAILED"}


def test_a_closed_form_is_judged_on_rows_that_it_was_not_fitted_to(
    tune: Tune, tmp_path: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Rasch.fit
    seen: list[set[str]] = []

    def watched(self: Any, train: Any, validation: Any, vocabulary: Any) -> Any:
        assert len(train) > len(validation) > 0
        assert not set(train["learner"]) & set(validation["learner"])
        seen.append({*train["learner"], *validation["learner"]})
        return fit(self, train, validation, vocabulary)

    monkeypatch.setattr(Rasch, "fit", watched)
    judged: list[set[str]] = []
    monkeypatch.setattr(worker, "_judged", judging(judged))
    report = searched(tmp_path, recipe="knowledge-rasch", settings={}, searched=[], count=2)
    assert [len(trial["losses"]) for trial in report["trials"]] == [1, 1]
    assert len(seen) == len(judged) == 2
    assert all(of and not of & known for of, known in zip(judged, seen, strict=True))


def judging(judged: list[set[str]]) -> Callable[..., float]:
    usual = worker._judged

    def watched(module: Any, splits: Any, train: Any, validation: Any) -> float:
        judged.append(set(validation["learner"]))
        return usual(module, splits, train, validation)

    return watched


@pytest.mark.parametrize(
    ("words", "fixed", "count", "seed"),
    [
        (SEARCHED, FIXED, 4, 5),
        (SEARCHED, FIXED, 3, 6),
        (SEARCHED[:2], FIXED, 3, 5),
        (["spec.width=4,16", *SEARCHED[1:]], FIXED, 3, 5),
        (SEARCHED, {**FIXED, "budget.epochs": "1"}, 3, 5),
    ],
)
def test_other_settings_trials_or_seeds_are_another_search(
    words: list[str], fixed: dict[str, str], count: int, seed: int
) -> None:
    usual = lineage(SEARCHED, FIXED, 3, 5)
    assert lineage(list(SEARCHED), dict(FIXED), 3, 5) == usual
    assert lineage(words, fixed, count, seed) != usual


def lineage(words: list[str], fixed: dict[str, str], count: int, seed: int) -> str:
    recipe = resolve("knowledge", None, "logs", fixed, None, seed)
    run = Run(recipe, Settings(home=Path("/nowhere")))
    return Plan(*planned(recipe, fixed, words, count)).lineage(run, clean_table(), split_table())


def test_nobody_is_erased_while_a_search_is_under_way(
    tune: Tune, tmp_path: Path, client: MlflowClient
) -> None:
    refused: list[str] = []

    def erase(self: Any, job: SearchJob, *_: Any) -> None:
        with pytest.raises(UsageError) as error, nobody_runs(Settings(tmp_path / "home"), "erase"):
            pass
        refused.append(str(error.value))
        raise KeyboardInterrupt

    tune.wait = erase.__get__(tune)  # type: ignore[method-assign]
    submit.wait = tune.wait  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path)
    assert "another run of knowledge" in refused[0]
