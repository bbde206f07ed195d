"""A node that has neither Prefect nor MLflow trains and serves: installed for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_worker_without_prefect_and_mlflow_trains_and_serves(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pinned = ["-c", str(ROOT / "infra" / "requirements.lock")]
    install = [str(python), "-m", "pip", "install", "--quiet", *pinned, f"{ROOT}[worker]"]
    subprocess.run(install, check=True, cwd=tmp_path)
    foreign = ("PREFECT_", "MLFLOW_", "RAY_", "LYCEUM_", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    environment["LYCEUM_KEY_FILE"] = str(tmp_path / "key")
    done = subprocess.run(
        [str(python), str(ROOT / "tests" / "worker_only.py"), str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["status"] == 200
    assert answer["version"] == "1"
    assert sys.executable != str(python)
