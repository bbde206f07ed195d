"""The layers hold: flows tell, tasks do, ray_jobs know nothing of either, and imports do nothing.

Read off every import statement, and seen again by importing it all in a
process where Prefect and MLflow are not to be had.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "ray_jobs": {"prefect", "mlflow", "tasks", "flows", "infra", "tests"},
    "tasks": {"flows", "infra", "tests"},
    "flows": {"infra", "tests"},
}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and top-level name of each import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call) and node.args:
            name, first = ast.unparse(node.func), node.args[0]
            dynamic = name in {"__import__", "import_module", "importlib.import_module"}
            if dynamic and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value.split(".")[0]


def breaches(root: Path) -> list[str]:
    """Imports that point against the arrows, and Python where none belongs."""
    found = [str(path.relative_to(root)) for path in (root / "infra").rglob("*.py")]
    for layer, forbidden in FORBIDDEN.items():
        for path in sorted((root / layer).rglob("*.py")):
            for line, name in imported(ast.parse(path.read_text())):
                if name in forbidden:
                    found.append(f"{path.relative_to(root)}:{line} {name}")
    return found


def test_every_import_follows_the_arrows() -> None:
    assert all(list((ROOT / layer).rglob("*.py")) for layer in FORBIDDEN)
    assert breaches(ROOT) == []


PLANTED = {
    "ray_jobs/a.py": "import mlflow.pyfunc as x",
    "ray_jobs/families/b.py": "def late():\n    from prefect import task",
    "ray_jobs/c.py": "if TYPE_CHECKING:\n    from tasks.run import Run",
    "ray_jobs/d.py": "import importlib\nimportlib.import_module('flows.pipeline')",
    "tasks/e.py": "import os, flows.pipeline",
    "flows/f.py": "from tests.test_layers import breaches",
    "infra/g.py": "",
}


@pytest.mark.parametrize("path", PLANTED)
def test_an_import_against_the_arrows_is_found_wherever_it_hides(path: str, tmp_path: Path) -> None:
    allowed = {"flows/ok.py": "import prefect, tasks, ray_jobs", "tasks/ok.py": "import ray_jobs"}
    for name, text in {**allowed, path: PLANTED[path]}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (breach,) = breaches(tmp_path)
    assert breach.startswith(path)


def test_a_module_of_our_own_that_only_sounds_alike_is_no_breach(tmp_path: Path) -> None:
    (tmp_path / "ray_jobs").mkdir()
    text = "from ray_jobs.tasks import x\nfrom .flows import y\nimport mlflow_like\n"
    (tmp_path / "ray_jobs" / "a.py").write_text(text)
    assert breaches(tmp_path) == []


IMPORT_ALL = """
import importlib, os, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"prefect", "mlflow", "tasks", "flows"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
opened = []

def watch(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        opened.append(str(arguments[0]))
    elif event in {"os.mkdir", "subprocess.Popen", "socket.connect", "socket.bind", "os.putenv"}:
        opened.append(f"{event} {arguments}")

# Theirs, with what they do on import:
import fastapi, lightgbm, polars, pyarrow.parquet, pydantic, ray, ray.serve, ray.train, torch
sys.addaudithook(watch)
before = dict(os.environ)
import ray_jobs
names = [m.name for m in pkgutil.walk_packages(ray_jobs.__path__, "ray_jobs.")]
for name in names:
    importlib.import_module(name)
import logging, ray
assert len(names) > 40, names
assert not opened, opened
assert dict(os.environ) == before
assert not ray.is_initialized()
assert not logging.getLogger("ray_jobs").handlers and not logging.getLogger().handlers
assert not {"prefect", "mlflow"} & set(sys.modules)
"""


def test_nothing_happens_on_import_and_neither_prefect_nor_mlflow_is_needed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALL],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (done.stdout, done.stderr) == ("", "")
    assert not list(tmp_path.iterdir())
