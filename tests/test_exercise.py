"""A family is one folder: an exercise is put beside the others, and nothing else is touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_jobs.families import families
from tests.installation import FOREIGN

ROOT = Path(__file__).parent.parent
EXERCISE = ROOT / "tests" / "exercise" / "words"
CONTRACT = ("test_family_contract.py", "test_family_verbs.py", "family_parts.py")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product with one family more."""
    root = tmp_path_factory.mktemp("tree")
    leave = shutil.ignore_patterns("__pycache__")
    for layer in ("flows", "tasks", "ray_jobs"):
        shutil.copytree(ROOT / layer, root / layer, ignore=leave)
    shutil.copytree(EXERCISE, root / "ray_jobs" / "families" / "words", ignore=leave)
    (root / "tests").mkdir()
    for name in ("__init__.py", *CONTRACT):
        shutil.copy(ROOT / "tests" / name, root / "tests" / name)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.fixture(scope="module")
def lyceum(tree: Path) -> Iterator[list[str]]:
    """The command line of that product, on a home of its own."""
    yield [sys.executable, "-c", "from flows.cli import main; main()"]
    subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "down"],
        cwd=tree, env=environment(tree), check=True,
    )  # fmt: skip


def environment(tree: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    return kept | {
        "PYTHONPATH": str(tree),
        "LYCEUM_HOME": str(tree / "home"),
        "LYCEUM_KEY_FILE": str(tree / "key"),
    }


def done(tree: Path, *command: str) -> str:
    found = subprocess.run(
        command, cwd=tree, env=environment(tree), capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_an_exercise_is_short() -> None:
    lines = [line for path in EXERCISE.rglob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) < 150


def test_a_new_family_keeps_the_contract(tree: Path) -> None:
    told = done(tree, sys.executable, "-m", "pytest", "-q", "-k", "words", *CONTRACT_TESTS)
    assert int(re.search(r"(\d+) passed", told)[1]) >= 20  # type: ignore[index]


CONTRACT_TESTS = [f"tests/{name}" for name in CONTRACT if name.startswith("test_")]


def test_the_command_line_knows_a_new_family(tree: Path, lyceum: list[str]) -> None:
    assert re.search(r"^words\tReviews", done(tree, *lyceum, "families"), re.MULTILINE)
    assert "words-smoke" in done(tree, *lyceum, "recipes")


@pytest.mark.platform
@pytest.mark.slow
def test_a_new_family_goes_all_the_way_to_an_answer(tree: Path, lyceum: list[str]) -> None:
    told = done(tree, *lyceum, "demo", "--family", "words")
    assert re.search(r'HTTP 200 {"praise":0\.\d+,"prediction_id":".+","version":"1"', told)
    assert len(set(re.findall("gate: passed: .*", told))) == 6
    assert "register: done" in told


def test_no_family_is_named_outside_its_folder() -> None:
    """Where one is named the machinery knows it, and another could not take its place."""
    named = re.compile(rf"\b({'|'.join(families())})\b", re.IGNORECASE)
    places = [ROOT / name for name in ("pyproject.toml", "Makefile")]
    for layer in ("flows", "tasks", "ray_jobs", "infra", ".ci"):
        places += [p for p in (ROOT / layer).rglob("*") if p.is_file() and p.suffix != ".pyc"]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in places
        if path.parent not in {ROOT / "ray_jobs" / "families" / name for name in families()}
        and not any(f"families/{name}/" in path.as_posix() for name in families())
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if named.search(line)
    ]
    assert found == []
