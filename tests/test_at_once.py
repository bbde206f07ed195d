"""Several people on one home at once: all get what they would have got alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from ray_jobs.families.knowledge.simulator import simulate
from tests.installation import SCHOOL, Installation

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(900)]


# What a small school's model is worth, and how busy the machine is, is no matter here.
LENIENT = ["--set", "gate.max_calibration_error=1", "--set", "gate.max_latency_ms=10000"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    simulate(SCHOOL, folder)
    return folder


@pytest.fixture(scope="module", params=["alone", "platform"])
def at(
    request: pytest.FixtureRequest, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    up = request.param == "platform"
    with Installation.lent(tmp_path_factory.mktemp("once"), logs, up=up) as here:
        yield here


def words(at: Installation, service: str, *more: str) -> list[str]:
    """A run of a service that tells its report in a file of its own."""
    report = at.home.parent / f"{service}.json"
    return [
        "run", "knowledge-smoke", "--service", service, "--data", str(at.data),
        "--json", str(report), *LENIENT, *more,
    ]  # fmt: skip


def told(at: Installation, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((at.home.parent / f"{service}.json").read_text())
    return found


def test_two_services_run_at_once_and_both_are_right(at: Installation) -> None:
    runs = [at.start(*words(at, service)) for service in ("algebra", "geometry")]
    for run in runs:
        out, err = run.communicate(timeout=300)
        assert run.returncode == 0, out + err
    at.lyceum(*words(at, "trigonometry"))
    found = {s: told(at, s) for s in ("algebra", "geometry", "trigonometry")}
    assert [report["version"] for report in found.values()] == ["1"] * 3
    assert len({report["data"]["digest"] for report in found.values()}) == 1
    for service, report in found.items():
        # Services divide their learners each in their own way.
        assert 0.6 < report["metrics"]["auc"]["value"] < 0.9, service
    again = at.run("knowledge-smoke", "--service", "algebra", "--data", str(at.data), *LENIENT)
    assert again["metrics"] == found["algebra"]["metrics"]
    assert {"ingest", "clean", "split", "train", "evaluate"} <= set(again["cached"])


def test_a_second_run_of_one_service_waits_and_says_for_whom(at: Installation) -> None:
    first = at.start(*words(at, "queue"))
    assert first.stdout is not None
    assert any(line.startswith("ingest: ") for line in first.stdout)
    second = at.start(*words(at, "queue"))
    outs = []
    for run in (first, second):
        out, err = run.communicate(timeout=300)
        assert run.returncode == 0, out + err
        outs.append(out)
    assert f"queue: waiting for another run of queue (process {first.pid}, since " in outs[1]
    client = MlflowClient(f"sqlite:///{at.home / 'mlflow.db'}")
    assert len(client.search_model_versions("name='queue'")) == 1


def test_a_run_during_promotions_leaves_a_consistent_registry(at: Installation) -> None:
    at.lyceum(*words(at, "moved"))
    at.lyceum(*words(at, "moved", "--set", "spec.prior=2"))
    run = at.start(*words(at, "moved", "--set", "spec.prior=3"))
    crowned = []
    while run.poll() is None:
        for version in ("1", "2"):
            at.lyceum("promote", "moved", version)
            crowned.append(version)
    out, err = run.communicate()
    assert run.returncode == 0, out + err
    assert len(crowned) >= 2
    client = MlflowClient(f"sqlite:///{at.home / 'mlflow.db'}")
    champion = int(client.get_model_version_by_alias("moved", "champion").version)
    row = {row["service"]: row for row in at.status()["services"]}["moved"]
    assert row["versions"] == 3
    assert champion == row["champion"] in {1, 2, 3}
    if row["endpoint"]:
        assert row["live"] == str(champion)
    at.lyceum("promote", "moved", "3")
    assert at.status()["services"]
    at.lyceum("rollback", "moved")
    row = {row["service"]: row for row in at.status()["services"]}["moved"]
    assert row["champion"] == champion if champion != 3 else row["champion"] in {1, 2}
