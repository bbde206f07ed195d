"""A whole run with nothing of it on this machine's disk, and gone on with from another home."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ray_jobs import store
from ray_jobs.families.knowledge.simulator import simulate
from tests.installation import SCHOOL, Installation
from tests.s3_parts import Server
from tests.test_end_to_end import SCRIPT


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_has_all_it_makes_on_s3_and_another_machine_goes_on_from_there(
    tmp_path: Path, s3: Server
) -> None:
    simulate(SCHOOL, tmp_path / "logs")
    url = s3.bucket()
    store.put_folder(tmp_path / "logs", f"{url}/logs")
    variables = {**s3.environment, "LYCEUM_STORE": f"{url}/lyceum"}
    here = Installation.of(tmp_path / "here", tmp_path, **variables)
    there = Installation.of(tmp_path / "there", tmp_path, **variables)
    there = replace(there, environment=here.environment | {"LYCEUM_HOME": str(there.home)})
    for machine in (here, there):
        machine.home.parent.mkdir()
    words = ("knowledge-smoke", "--data", f"{url}/logs")
    first, second = here.run(*words), there.run(*words)
    assert first["gate"]["passed"]
    assert first["cached"] == []
    assert {"ingest", "clean", "split", "train", "evaluate"} <= set(second["cached"])
    assert second["metrics"] == first["metrics"]
    made = {name.split("/")[0] for name in store.sizes(f"{url}/lyceum")}
    assert made == {"format.json", "mlflow", "releases", "snapshots", "stages"}
    for machine in (here, there):
        assert not (machine.home / "store").exists()
        script = [sys.executable, "-c", SCRIPT, f"sqlite:///{machine.home / 'mlflow.db'}"]
        quiet = {**machine.environment, "MLFLOW_DISABLE_TELEMETRY": "true"}
        done = subprocess.run(
            script, env=quiet, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == "3", done.stderr
