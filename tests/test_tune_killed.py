"""A search killed at any moment goes on: each trial stands in MLflow once, and is trained once."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from flows.platform.processes import marked
from ray_jobs import store
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.training import events
from ray_jobs.tuning.job import SearchJob
from ray_jobs.tuning.trials import FAILED, FINISHED, STOPPED, Trial, known
from tasks.trials import END, PARENT, STATUS
from tests.installation import SCHOOL, Installation
from tests.s3_parts import Server

pytestmark = [
    pytest.mark.ray,
    pytest.mark.platform,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

TRIALS, EPOCHS = 7, 8
FIXED = ["spec.neighbours=0", f"budget.epochs={EPOCHS}", "budget.batch_cost=128"]
SEARCHED = ["spec.width=8,16", "spec.dropout=0..0.6", "budget.learning_rate=1e-3..3e-2"]
WORDS = ["knowledge", *(word for setting in FIXED for word in ("--set", setting))]
SEARCH = [*WORDS, *(word for one in SEARCHED for word in ("--search", one))]
SEARCH += ["--trials", str(TRIALS)]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("school") / "logs"
    simulate(SCHOOL, folder)
    return folder


@pytest.fixture
def up(request: pytest.FixtureRequest) -> bool:
    return bool(getattr(request, "param", False))


@pytest.fixture
def at(up: bool, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("tuned")
    with Installation.lent(folder, logs, up=up, LYCEUM_KEY_FILE=str(logs.parent / "key")) as here:
        yield here


def killed_flow(run: psutil.Process) -> None:
    run.kill()
    run.wait()


def interrupted(run: psutil.Process) -> None:
    run.send_signal(signal.SIGINT)
    run.wait(60)


@pytest.mark.parametrize(
    ("up", "ends"),
    [(False, killed_flow), (True, killed_flow), (False, interrupted)],
    indirect=["up"],
    ids=["alone", "platform", "interrupted"],
)
def test_a_search_that_is_killed_goes_on_and_tells_of_each_trial_once(
    at: Installation, ends: Callable[[psutil.Process], None]
) -> None:
    run = at.start("tune", *SEARCH, "--data", str(at.data))
    before = until_under_way(at)
    assert run.poll() is None, "it was over before it could be killed"
    ends(psutil.Process(run.pid))
    close_pipes(run)
    ended = {trial.number: tale_of(at, trial.number) for trial in before if trial.end}
    begun = {trial.number: trial for trial in before}
    assert ended, "none had ended"
    assert len(ended) < len(begun), "none was running"
    report = tuned(at)
    after = {trial.number: trial for trial in known(job(at))}
    assert sorted(after) == list(range(1, TRIALS + 1))
    assert {n: tale_of(at, n) for n in ended} == ended, "what had ended was trained again"
    assert {n: after[n].settings for n in begun} == {n: t.settings for n, t in begun.items()}
    told_once(at, report)
    nothing_left(at)


def test_a_ray_job_that_is_killed_is_started_again_within_the_search(at: Installation) -> None:
    run = at.start("tune", *SEARCH, "--data", str(at.data), "--json", str(at.home / "found.json"))
    until_under_way(at)
    (driver,) = processes_of("ray_jobs.tune", at.home)
    driver.kill()
    out, err = run.communicate(timeout=400)
    assert run.returncode == 0, f"{out}\n{err}"
    attempts = [e.attempt for e in events.read(job(at).events) if e.kind == "started"]
    assert attempts == [1, 2]
    told_once(at, json.loads((at.home / "found.json").read_text()))
    nothing_left(at)


def test_the_command_it_ends_with_trains_the_best_trial_to_the_same_losses(
    at: Installation,
) -> None:
    report = tuned(at)
    lyceum, run, *words = report["command"].split()
    assert (lyceum, run) == ("lyceum", "run")
    lenient = ["gate.beat_baseline=false", "gate.margin=1", "gate.slice_margin=1"]
    lenient += ["gate.max_calibration_error=1"]
    at.run(*words, "--workers", "1", *(w for one in lenient for w in ("--set", one)))
    (folder,) = (at.home / "store" / "stages" / "train").iterdir()
    epochs = events.by_step(events.read(str(folder / "events.jsonl")))
    losses = [epochs[step].metrics["validation_loss"] for step in sorted(epochs)]
    assert report["best"]["end"] == FINISHED
    assert losses == pytest.approx(report["best"]["losses"], rel=1e-4)
    again = tuned(at)
    assert again["cached"] == ["ingest", "clean", "split", "tune"]
    assert again["trials"] == report["trials"]
    told_once(at, again, others=1)


def test_a_search_with_its_store_on_s3_goes_on_on_another_machine(
    logs: Path, tmp_path: Path, s3: Server
) -> None:
    variables = {**s3.environment, "LYCEUM_STORE": f"{s3.bucket()}/lyceum"}
    variables |= {"LYCEUM_KEY_FILE": str(logs.parent / "key")}
    here, there = (Installation.of(tmp_path / n, logs, **variables) for n in ("here", "there"))
    for machine in (here, there):
        machine.home.parent.mkdir()
    run = here.start("tune", *SEARCH, "--data", str(logs))
    before = until_under_way(here)
    killed_flow(psutil.Process(run.pid))
    close_pipes(run)
    here.lyceum("down")
    ended = {trial.number: tale_of(here, trial.number) for trial in before if trial.end}
    told_once(there, tuned(there))
    assert {n: tale_of(there, n) for n in ended} == ended, "what had ended was trained again"
    nothing_left(there)


def test_a_search_whose_storage_goes_away_waits_for_it(
    logs: Path, tmp_path: Path, s3: Server
) -> None:
    variables = {**s3.environment, "LYCEUM_STORE": f"{s3.bucket()}/lyceum"}
    at = Installation.of(tmp_path, logs, LYCEUM_KEY_FILE=str(logs.parent / "key"), **variables)
    run = at.start("tune", *SEARCH, "--data", str(logs), "--json", str(tmp_path / "found.json"))
    until_under_way(at)
    s3.kill()
    time.sleep(20)
    s3.start()
    out, err = run.communicate(timeout=400)
    assert run.returncode == 0, f"{out}\n{err}"
    told_once(at, json.loads((tmp_path / "found.json").read_text()))
    tales = [events.read(job(at).trial_events(trial.number)) for trial in known(job(at))]
    assert {e.attempt for tale in [events.read(job(at).events), *tales] for e in tale} == {1}
    nothing_left(at)


def tuned(at: Installation) -> dict[str, Any]:
    path = at.home.parent / "search.json"
    at.lyceum("tune", *SEARCH, "--data", str(at.data), "--json", str(path))
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def job(at: Installation) -> SearchJob:
    found = asked(place_of(at))
    assert found is not None
    return found


def place_of(at: Installation) -> str:
    """Where an installation keeps its searches."""
    return f"{at.environment.get('LYCEUM_STORE', at.home / 'store')}/stages/tune"


def asked(place: str) -> SearchJob | None:
    """The one search there, once it was asked for."""
    # Not the file that is still being written, whose name begins with a dot.
    found = [name for name in store.sizes(place) if name.endswith("/job.json")]
    names = [name for name in found if name.count("/") == 1]
    assert len(names) < 2
    return SearchJob.load(f"{place}/{names[0]}") if names else None


def tale_of(at: Installation, number: int) -> bytes:
    return store.read_bytes(job(at).trial_events(number))


def until_under_way(at: Installation) -> list[Trial]:
    """Until some trials have ended, and another is in the midst of its epochs."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if (of := asked(place_of(at))) is not None:
            found = known(of)
            running = [t for t in found if not t.end and 0 < t.epochs < EPOCHS - 1]
            if running and any(t.end for t in found) and len(found) < TRIALS:
                return found
        time.sleep(0.02)
    raise AssertionError("no trial was under way")


def told_once(at: Installation, report: dict[str, Any], *, others: int = 0) -> None:
    """MLflow has one search, with each trial and each of its epochs once."""
    client = MlflowClient(f"sqlite:///{at.home / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=1000)
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "search"]
    children = {int(run.data.tags["trial.number"]): run for run in runs if PARENT in run.data.tags}
    assert len(runs) == 1 + TRIALS + others
    assert sorted(children) == list(range(1, TRIALS + 1))
    assert parent.info.status == "FINISHED"
    assert "error" not in parent.data.tags
    assert parent.data.metrics["trials/all"] == TRIALS
    assert parent.data.metrics["best/validation_loss"] == report["best"]["validation_loss"]
    for trial in report["trials"]:
        told_as_it_was(client, parent.info.run_id, children[trial["number"]], trial)


def told_as_it_was(client: MlflowClient, parent: str, run: Run, trial: dict[str, Any]) -> None:
    assert run.data.tags[PARENT] == parent
    assert run.data.tags[END] == trial["end"] in (FINISHED, STOPPED, FAILED)
    assert run.info.status == STATUS[trial["end"]]
    for key, value in trial["settings"].items():
        assert run.data.params[key] == str(value)
    history = client.get_metric_history(run.info.run_id, "epoch/validation_loss")
    assert [m.step for m in history] == list(range(1, len(trial["losses"]) + 1))
    assert [m.value for m in history] == trial["losses"]
    assert trial["end"] != FINISHED or len(history) == EPOCHS


def nothing_left(at: Installation) -> None:
    """Neither a process, nor checkpoints, nor examples on the node's disk."""
    at.lyceum("down")
    assert not marked(at.home, lambda _mark: True)
    assert not [name for name in store.sizes(place_of(at)) if name.endswith(".pt")]
    assert not [p for p in (at.home / "cache" / "shards").iterdir() if p.is_dir()]


def processes_of(module: str, home: Path) -> list[psutil.Process]:
    """Those of a home that run a module."""
    return [p for p in marked(home, lambda _mark: True) if module in p.cmdline()]


def close_pipes(run: Any) -> None:
    """What it started holds them open: there is no end to read."""
    run.wait()
    for pipe in (run.stdout, run.stderr):
        pipe.close()
