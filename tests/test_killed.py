"""Killed at any moment, a run started again ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from flows.platform.processes import marked
from ray_jobs.families.knowledge.simulator import simulate
from tests.installation import SCHOOL, Installation

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(2400)]

# A small network in a few epochs: training goes through Ray and leaves checkpoints.
SMALL = ["spec.width=16", "spec.neighbours=0", "budget.epochs=6"]
SMALL += ["gate.beat_baseline=false", "gate.margin=1", "gate.slice_margin=1"]
SMALL += ["gate.max_calibration_error=1"]
WORDS = ["knowledge", *(word for setting in SMALL for word in ("--set", setting))]
# The last words of a stage, after which a kill meets the next: so many kills each.
AFTER = {"": 2, "ingest": 2, "clean": 2, "split": 2, "describe": 8, "train": 3}
AFTER |= {"evaluate": 3, "gate": 4}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("school") / "logs"
    simulate(SCHOOL, folder)
    return folder


def same_key(logs: Path) -> dict[str, str]:
    """With another key, learners have other pseudonyms and stand in another order."""
    return {"LYCEUM_KEY_FILE": str(logs.with_name("key"))}


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "platform"])
def up(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def undisturbed(up: bool, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with Installation.lent(folder, logs, up=up, **same_key(logs)) as here:
        return here.run(*WORDS, "--data", str(logs))


@pytest.fixture
def at(up: bool, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("killed")
    with Installation.lent(folder, logs, up=up, **same_key(logs)) as here:
        yield here


def test_killed_twenty_times_a_run_ends_as_if_undisturbed(
    at: Installation, undisturbed: dict[str, Any]
) -> None:
    chance = random.Random(7)
    ports: set[int] = set()
    kills = [stage for stage, times in AFTER.items() for _ in range(times)]
    landed = 0
    for stage in kills:
        share = chance.random()
        for _ in range(5):
            found = killed(at, stage, share, undisturbed)
            ports |= found
            if found:
                landed += 1
                break
            share /= 2  # it was over: it is faster now than the undisturbed one was
    assert landed >= 20
    report = at.run(*WORDS, "--data", str(at.data))
    assert report["metrics"] == undisturbed["metrics"]
    assert told_of_data(report) == told_of_data(undisturbed)
    assert report["slices"] == undisturbed["slices"]
    one_run_with_each_step_once(at)
    whole_tables(at)
    at.lyceum("down")
    assert not marked(at.home, lambda _mark: True)
    assert not list((at.home / "run").glob("run-*.json"))
    assert len(ports) > 5
    assert not ports & ports_held(at.home)


def told_of_data(report: dict[str, Any]) -> dict[str, Any]:
    """All but where it lies."""
    data: dict[str, Any] = report["data"]
    return data | {"split": {k: v for k, v in data["split"].items() if k != "uri"}}


def killed(at: Installation, stage: str, share: float, undisturbed: dict[str, Any]) -> set[int]:
    """Start a run and kill it after a stage; the ports its processes listened on, and 0.

    Nothing where it ended before.
    """
    run = at.start("run", *WORDS, "--data", str(at.data))
    assert run.stdout is not None
    if stage:
        # Where the kill before came after the crowning, there is nothing left to judge.
        ends = (f"{stage}: done", f"{stage}: skipped")
        heard = any(line.startswith(ends) for line in run.stdout)
        assert heard, run.communicate()[1]
    stages = ["", *undisturbed["timings_s"]]
    following = stages[stages.index(stage) + 1]
    # Where stages come from the cache, starting takes about as long as a stage.
    time.sleep(share * max(undisturbed["timings_s"][following], 0.2 if stage else 6))
    # It may be over: it was faster than the undisturbed one, whose checkpoint it had.
    found = listening_of(run.pid) | {0} if run.poll() is None else set()
    run.kill()
    # What it started lives until the next start, and holds its pipes open: there is no end to read.
    run.wait()
    for pipe in (run.stdout, run.stderr):
        assert pipe is not None
        pipe.close()
    return found


def ports_held(home: Path) -> set[int]:
    """Ports on which a process of a home listens, or one that does not say whose it is."""
    found = set()
    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.status == "LISTEN":
            try:
                environment = psutil.Process(connection.pid).environ() if connection.pid else {}
            except psutil.NoSuchProcess:
                continue
            if not environment or environment.get("LYCEUM_HOME") == str(home):
                found.add(connection.laddr.port)
    return found


def listening_of(pid: int) -> set[int]:
    found = set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue  # it ended meanwhile
        found |= {c.laddr.port for c in connections if c.laddr and c.status == "LISTEN"}
    return found


def one_run_with_each_step_once(at: Installation) -> None:
    client = MlflowClient(f"sqlite:///{at.home / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, run_view_type=ViewType.ALL)
    assert [run.info.status for run in runs] == ["FINISHED"]
    steps = [m.step for m in client.get_metric_history(runs[0].info.run_id, "epoch/train_loss")]
    assert steps == list(range(1, 7))
    (version,) = client.search_model_versions("name='knowledge'")
    assert client.get_model_version_by_alias("knowledge", "champion").version == version.version


def whole_tables(at: Installation) -> None:
    """Every file that a stage says it wrote is there, as long as it says."""
    manifests = list((at.home / "store" / "stages").glob("*/*/manifest.json"))
    assert manifests
    for path in manifests:
        for place, sizes in json.loads(path.read_text())["files"].items():
            folder = Path(place.removeprefix("file://"))
            assert {n: (folder / n).stat().st_size for n in sizes} == sizes, path
