"""Where a figure comes from: the commit of the code that ran, and of no other checkout."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import ray_jobs
from tasks.provenance import code_tags, flat, flow_tags

COMMIT, DIRTY = "mlflow.source.git.commit", "mlflow.source.git.dirty"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as if it lay in a folder."""
    package = folder / "ray_jobs" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("VERSION = 1\n")
    monkeypatch.setattr(ray_jobs, "__file__", str(package))
    return package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package in a checkout of its own, while we stand in another."""
    for name in ("ours", "theirs"):
        git(tmp_path, "init", "--quiet", name)
    (tmp_path / "theirs" / "notes").touch()
    monkeypatch.chdir(tmp_path / "theirs")
    package = installed(tmp_path / "ours", monkeypatch)
    for name in ("theirs", "ours"):
        git(tmp_path / name, "add", ".")
        git(tmp_path / name, "commit", "--quiet", "-m", name)
    return package


def touch(package: Path) -> None:
    package.write_text("VERSION = 2\n")


def add(package: Path) -> None:
    package.with_name("scratch.txt").touch()


@pytest.mark.parametrize(
    ("change", "dirty"), [(lambda _: None, "false"), (add, "false"), (touch, "true")]
)
def test_a_checkout_is_named_by_its_commit_and_says_when_its_code_is_not_that_commit(
    package: Path, change: Callable[[Path], None], dirty: str
) -> None:
    change(package)
    tags = code_tags()
    assert (tags[COMMIT], tags[DIRTY]) == (git(package.parent, "rev-parse", "HEAD"), dirty)


def test_code_installed_inside_somebodys_checkout_is_not_that_checkouts(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(package.parents[1] / "venv", monkeypatch)
    assert code_tags() == {
        "lyceum.version": ray_jobs.__version__,
        "mlflow.source.name": "lyceum",
        "mlflow.source.type": "JOB",
    }


def test_a_checkout_without_a_commit_or_a_machine_without_git_has_its_version_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")
    installed(tmp_path, monkeypatch)
    git(tmp_path, "add", ".")
    assert COMMIT not in code_tags()
    monkeypatch.setenv("PATH", "")
    assert COMMIT not in code_tags()


def test_a_flow_run_is_named_within_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flow_tags() == {}
    for name, value in (("ID", "f1"), ("UI_URL", "http://here/f1")):
        monkeypatch.setenv(f"PREFECT__RUNTIME__FLOW_RUN__{name}", value)
    assert flow_tags() == {"prefect.flow_run_id": "f1", "prefect.flow_run_url": "http://here/f1"}


def test_dotted_names_reach_as_deep_as_the_settings() -> None:
    values = {"split": {"by": {"test": 0.2, "salt": ""}}, "seed": None}
    assert flat(values, "recipe.") == {
        "recipe.split.by.test": "0.2",
        "recipe.split.by.salt": "",
        "recipe.seed": "None",
    }
