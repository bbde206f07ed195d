"""The main job as a user does it: one platform, real Prefect, Ray, MLflow and HTTP."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest

from ray_jobs.families.knowledge.simulator import simulate
from tests.installation import SCHOOL, Installation

pytestmark = [pytest.mark.platform, pytest.mark.timeout(900)]

SOON_S = 40.0  # takes 12 where two cores have nothing else to do


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A platform that is up, with a small simulated log to learn from."""
    folder = tmp_path_factory.mktemp("e2e")
    simulate(SCHOOL, folder / "logs")
    with Installation.lent(folder, folder / "logs", up=True) as at:
        yield at


@pytest.fixture(scope="module")
def key(here: Installation) -> dict[str, str]:
    """What lets a client in, everywhere."""
    return here.key("*")


@pytest.fixture(scope="module")
def first(here: Installation) -> dict[str, Any]:
    """The report of the first run."""
    return here.run("knowledge-smoke", "--data", str(here.data))


def ask(endpoint: str, headers: dict[str, str]) -> dict[str, Any]:
    body = {
        "history": [{"item": "a", "skills": ["b"], "correct": 1}],
        "candidates": [{"item": "c"}],
    }
    answer = httpx.post(f"{endpoint}/v1/predict", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_run_ends_with_an_answer_of_the_version_it_registered(
    first: dict[str, Any], key: dict[str, str]
) -> None:
    told = ask(first["endpoint"], key)
    assert (told["version"], told["lineage"]) == (first["version"], first["lineage"])
    assert 0 < told["predictions"][0]["probability"] < 1


def test_the_report_accounts_for_every_row_and_says_how_it_measured(first: dict[str, Any]) -> None:
    data = first["data"]
    bad = sum(data["quarantined"].values())
    assert bad > 0
    assert data["rows"] == data["kept"] + bad + data["merged"] + data["repeats"]
    assert first["protocol"].startswith("N:")
    assert first["gate"]["passed"]
    assert set(first["metrics"]["auc"]) == {"value", "low", "high"}
    assert first["metrics"]["auc"]["low"] > 0.5


def test_the_same_run_again_comes_from_the_cache_and_registers_nothing(
    here: Installation, first: dict[str, Any]
) -> None:
    again = here.run("knowledge-smoke", "--data", str(here.data))
    assert {"ingest", "clean", "split", "describe", "train"} <= set(again["cached"])
    assert (again["version"], again["lineage"]) == (first["version"], first["lineage"])
    assert again["metrics"] == first["metrics"]
    assert again["endpoint"] == first["endpoint"]


SCRIPT = """
import sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/knowledge-smoke@champion")
frame = pandas.DataFrame({
    "learner": ["ada"] * 3, "item": ["x", "y", "z"], "skills": [["s"]] * 3,
    "correct": [1.0, 0.0, None],
})
print(model.predict(frame)["probability"].between(0, 1).sum())
"""


@pytest.mark.parametrize("up", [True, False])
def test_a_script_that_knows_only_mlflow_loads_the_champion(
    here: Installation, first: dict[str, Any], up: bool
) -> None:
    uri = here.status()["mlflow_tracking_uri"] if up else f"sqlite:///{here.home / 'mlflow.db'}"
    quiet = {**here.environment, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, uri],
        env=quiet, cwd=here.home.parent, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "3", done.stderr


def test_a_whole_log_is_scored_by_the_champion_and_no_row_twice(
    here: Installation, first: dict[str, Any]
) -> None:
    from mlflow.tracking import MlflowClient

    out = here.home.parent / "scores"
    command = ("score", "knowledge-smoke", "--data", str(here.data), "--out", str(out))
    assert f"version {first['version']}" in here.lyceum(*command)
    report = json.loads((out / "score.json").read_text())
    assert (report["lineage"], report["data"]["digest"]) == (
        first["lineage"],
        first["data"]["digest"],
    )
    told = pl.read_parquet(out / "predictions")
    assert len(told) == report["rows"]["predictions"] == first["data"]["kept"]
    assert told["probability"].is_between(0, 1).all()
    assert len(pl.read_parquet(out / "mastery")) == report["rows"]["mastery"] > 0
    scored = MlflowClient(here.status()["mlflow_tracking_uri"]).get_run(report["run_id"])
    assert scored.info.status == "FINISHED"
    assert scored.data.metrics["rows/mastery"] == report["rows"]["mastery"]
    assert scored.data.tags["version_lineage"] == first["lineage"]
    assert scored.data.params["out"] == str(out)
    assert "score: done" in here.lyceum(*command)
    assert json.loads((out / "score.json").read_text()) == report
    nobody = here.lyceum("score", "nobody", *command[2:], status=2)
    assert "service 'nobody' has no champion" in nobody


@pytest.mark.slow
@pytest.mark.usefixtures("first")
def test_a_scoring_that_is_interrupted_says_so_and_goes_on(here: Installation) -> None:
    command = ("score", "knowledge-smoke", "--data", str(here.data), "--out", "interrupted")
    run = here.start(*command)
    assert run.stdout is not None
    # Workers are yet to be started: whoever waits for them is what is interrupted.
    assert any("0 of them there already" in line for line in run.stdout)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert (run.returncode, "run the same command again" in err) == (130, True), err
    here.lyceum(*command)
    assert (here.home.parent / "interrupted" / "score.json").is_file()


def test_mlflow_holds_what_an_analyst_looks_for(here: Installation, first: dict[str, Any]) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(here.status()["mlflow_tracking_uri"])
    version = client.get_model_version_by_alias("knowledge-smoke", "champion")
    assert version.run_id
    run = client.get_run(version.run_id)
    assert version.version == first["version"]
    assert version.tags["lineage"] == run.data.tags["lineage"] == first["lineage"]
    assert run.data.tags["data_digest"] == first["data"]["digest"]
    assert run.data.params["seed"] == "0"
    assert run.data.metrics["auc"] == pytest.approx(first["metrics"]["auc"]["value"])
    assert run.inputs
    assert run.inputs.dataset_inputs
    files = {
        f.path for top in ("", "plots", "data") for f in client.list_artifacts(version.run_id, top)
    }
    assert {"model_card.md", "report.json", "plots/roc.png", "plots/calibration.png"} <= files
    assert {"data/report.json", "data/report.html"} <= files


def test_prefect_holds_a_task_per_stage_with_its_lines_and_the_report(
    here: Installation, first: dict[str, Any]
) -> None:
    api = here.status()["prefect_api_url"]
    run_id = first["links"]["Prefect flow run"].rsplit("/", 1)[1]
    flow = httpx.get(f"{api}/flow_runs/{run_id}").json()
    assert flow["state"]["type"] == "COMPLETED"
    mine = {"flow_runs": {"id": {"any_": [run_id]}}}
    tasks = httpx.post(f"{api}/task_runs/filter", json=mine).json()
    stages = {t["name"].rsplit("-", 1)[0] for t in tasks}
    assert {
        "ingest",
        "clean",
        "split",
        "describe",
        "train",
        "evaluate",
        "gate",
        "register",
        "publish",
    } <= stages
    lines = httpx.post(
        f"{api}/logs/filter", json={"logs": {"flow_run_id": {"any_": [run_id]}}}
    ).json()
    assert any("rows read =" in line["message"] for line in lines)
    pages = httpx.post(f"{api}/artifacts/filter", json=mine).json()
    assert any("## Gate" in (page["data"] or "") for page in pages)
    assert any(first["links"]["data report"] in (page["data"] or "") for page in pages)


class Client(threading.Thread):
    """Asks a service all the time, and keeps every answer."""

    def __init__(self, endpoint: str, headers: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.endpoint = endpoint
        self.headers = headers
        self.answers: list[str] = []
        self.failures: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            try:
                self.answers.append(ask(self.endpoint, self.headers)["version"])
            except (AssertionError, httpx.TransportError) as error:
                self.failures.append(repr(error))
            time.sleep(0.02)


@pytest.mark.slow
def test_a_service_answers_throughout_its_own_retraining_and_swap(
    here: Installation, first: dict[str, Any], key: dict[str, str]
) -> None:
    client = Client(first["endpoint"], key)
    client.start()
    small = ["spec.width=16", "spec.neighbours=0", "budget.epochs=2"]
    words = [word for setting in small for word in ("--set", setting)]
    # A network on both cores beside the live service; whether it beats Rasch is not the point.
    network = here.start("run", "knowledge", "--service", "other", "--data", str(here.data), *words)
    out, err = network.communicate(timeout=400)
    assert "train: epoch 2 of 2" in out, err
    retrained = here.run("knowledge-smoke", "--data", str(here.data), "--seed", "1")
    time.sleep(1)
    client.done.set()
    client.join()
    assert not client.failures
    assert client.answers[0] == first["version"]
    assert client.answers[-1] == retrained["version"] != first["version"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_leaves_no_job_and_goes_on(
    here: Installation, number: signal.Signals
) -> None:
    settings = ["spec.width=16", "spec.neighbours=0", "budget.epochs=60", f"seed={number}"]
    words = [word for setting in settings for word in ("--set", setting)]
    command = ["run", "knowledge", "--service", "stopped", "--data", str(here.data), *words]
    run = here.start(*command)
    assert run.stdout is not None
    assert any(line.startswith("train: epoch 2 ") for line in run.stdout)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert (run.returncode, "run the same command again" in err) == (128 + number, True), err
    trains = [p for p in psutil.process_iter(["cmdline"]) if _trains(p, here.home)]
    assert not trains
    again = here.start(*command, "--no-publish")
    out, err = again.communicate(timeout=300)
    epochs = re.findall(r"train: epoch (\d+) of 60", out)
    assert epochs[-1] == "60", err
    assert re.search(r"split: done in \S+ s \(from cache\)", out)


def _trains(process: psutil.Process, home: Path) -> bool:
    command = process.info["cmdline"] or []
    return "ray_jobs.train" in command and any(str(home) in word for word in command)


@pytest.fixture(scope="module")
def second(here: Installation, first: dict[str, Any]) -> str:
    """A second version of the same service."""
    version: str = here.run("knowledge-smoke", "--data", str(here.data), "--seed", "1")["version"]
    assert version != first["version"]
    return version


def test_rollback_and_promote_swap_what_answers(
    here: Installation, first: dict[str, Any], second: str, key: dict[str, str]
) -> None:
    here.lyceum("promote", "knowledge-smoke", second)
    here.lyceum("rollback", "knowledge-smoke")
    assert ask(first["endpoint"], key)["version"] == first["version"]
    here.lyceum("promote", "knowledge-smoke", second)
    assert ask(first["endpoint"], key)["version"] == second
    assert "no version '99'" in here.lyceum("promote", "knowledge-smoke", "99", status=2)


class Console:
    """MLflow's own interface to one service, as its pages use it."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/api/2.0/mlflow"

    def told(self, path: str, words: dict[str, str]) -> Any:
        return httpx.get(f"{self.url}/{path}", params=words).json()

    def crown(self, version: str) -> None:
        words = {"name": "knowledge-smoke", "alias": "champion", "version": version}
        httpx.post(f"{self.url}/registered-models/alias", json=words).raise_for_status()

    def champion(self) -> str:
        words = {"name": "knowledge-smoke"}
        found = self.told("registered-models/get", words)["registered_model"]
        return str({a["alias"]: a["version"] for a in found["aliases"]}["champion"])

    def tags(self, version: str) -> dict[str, str]:
        words = {"name": "knowledge-smoke", "version": version}
        found = self.told("model-versions/get", words)["model_version"]
        return {tag["key"]: tag["value"] for tag in found["tags"]}


def within(limit_s: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_champion_crowned_in_mlflow_goes_live_or_says_why_not_and_no_request_is_lost(
    here: Installation, first: dict[str, Any], second: str, key: dict[str, str]
) -> None:
    here.lyceum("promote", "knowledge-smoke", second)
    console, client = Console(here.status()["mlflow_tracking_uri"]), Client(first["endpoint"], key)
    client.start()
    console.crown(first["version"])
    assert within(SOON_S, lambda: client.answers[-1:] == [first["version"]])
    release = Path(console.tags(second)["release"])
    whole = release.read_text()
    spoilt = json.loads(whole)
    spoilt["golden"][0]["outcomes"][0][0] += 0.1
    release.write_text(json.dumps(spoilt))
    since = len(client.answers)
    console.crown(second)
    assert within(SOON_S, lambda: "golden request 0" in console.tags(second).get("refused", ""))
    assert within(SOON_S, lambda: console.champion() == first["version"])
    release.write_text(whole)
    client.done.set()
    client.join()
    assert not client.failures
    assert set(client.answers[since:]) == {first["version"]}
    lines = map(json.loads, (here.home / "logs/audit.jsonl").read_text().splitlines())
    told = [(x["version"], x["outcome"]) for x in lines if x["who"] == "reconciler"]
    assert told == [(int(first["version"]), "done"), (int(second), "refused")]


@pytest.mark.slow
def test_bad_words_end_with_one_line_and_status_2(here: Installation) -> None:
    for words in (
        ["run", "nothing"],
        ["run", "knowledge", "--data", "/nowhere"],
        ["run", "knowledge", "--data", str(here.data), "--set", "budget.epoch=1"],
        ["run", "knowledge", "--data", str(here.data), "--set", "budget.epochs=many"],
        ["rollback", "nobody"],
    ):
        said = here.lyceum(*words, status=2)
        assert said.startswith("error: "), said
        assert "Traceback" not in said


@pytest.mark.slow
def test_a_schedule_fires_by_itself_and_ends_green(here: Installation, key: dict[str, str]) -> None:
    words = ["knowledge-smoke", "--service", "nightly", "--data", str(here.data)]
    here.lyceum("schedule", *words, "--cron", "* * * * *")
    api = here.status()["prefect_api_url"]
    deadline = time.monotonic() + 240
    states: list[str] = []
    while "COMPLETED" not in states:
        assert time.monotonic() < deadline, states
        time.sleep(2)
        mine = {"deployments": {"name": {"like_": "nightly"}}, "sort": "START_TIME_DESC"}
        runs = httpx.post(f"{api}/flow_runs/filter", json=mine).json()
        states = [run["state"]["type"] for run in runs]
        assert not {"FAILED", "CRASHED"} & set(states)
    endpoints = {row["service"]: row["endpoint"] for row in here.status()["services"]}
    assert ask(endpoints["nightly"], key)["version"] == "1"


@pytest.mark.slow
def test_a_scheduled_run_that_is_cancelled_in_prefect_leaves_no_training(
    here: Installation,
) -> None:
    words = ["knowledge", "--service", "called-off", "--data", str(here.data)]
    here.lyceum("schedule", *words, "--set", "budget.epochs=5000", "--cron", "* * * * *")
    api = here.status()["prefect_api_url"]
    deadline = time.monotonic() + 240
    while not trainings(here):
        assert time.monotonic() < deadline
        time.sleep(1)
    mine = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    (run,) = httpx.post(f"{api}/flow_runs/filter", json=mine).json()
    httpx.patch(f"{api}/deployments/{run['deployment_id']}", json={"paused": True})
    asked = {"state": {"type": "CANCELLING"}}
    answer = httpx.post(f"{api}/flow_runs/{run['id']}/set_state", json=asked).json()
    assert answer["status"] == "ACCEPT"
    deadline = time.monotonic() + 30
    while trainings(here):
        assert time.monotonic() < deadline, "it trains on for nobody"
        time.sleep(0.5)
    while (state := httpx.get(f"{api}/flow_runs/{run['id']}").json()["state"]["type"]) in (
        "RUNNING", "CANCELLING",
    ):  # fmt: skip
        assert time.monotonic() < deadline + 60
        time.sleep(1)
    assert state == "CANCELLED"


def trainings(here: Installation) -> list[psutil.Process]:
    """The training jobs of a home."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "ray_jobs.train" in words and any(str(here.home) in word for word in words):
            found.append(process)
    return found
