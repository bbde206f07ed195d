"""What a piece of code depends on: changed lines of that, and of nothing else, count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import ray_jobs
from ray_jobs import code

FILES = {
    "__init__.py": "",
    "a.py": "from ray_jobs import b\nfrom ray_jobs.pack.c import thing\n",
    "b.py": "import json\n",
    "other.py": "from ray_jobs import a\n",
    "lazy.py": "def late():\n    from ray_jobs.pack import name\n",
    "round.py": "from ray_jobs import trip\n",
    "trip.py": "from ray_jobs import round\n",
    "pack/__init__.py": "name = 1\n",
    "pack/c.py": "thing = 1\n",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "ray_jobs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(ray_jobs, "__file__", str(tmp_path / "ray_jobs" / "__init__.py"))
    return tmp_path / "ray_jobs"


def names(*pieces: str) -> set[str]:
    root = Path(ray_jobs.__file__).parent
    return {path.relative_to(root).as_posix() for path in code.files(*pieces)}


def test_imports_are_followed_wherever_they_stand(root: Path) -> None:
    # A package counts only where a name of its own is imported.
    assert names("ray_jobs.a") == {"a.py", "b.py", "pack/c.py"}
    assert names("ray_jobs.lazy") == {"lazy.py", "pack/__init__.py"}
    assert names("ray_jobs.round") == {"round.py", "trip.py"}
    assert names("ray_jobs.b", "ray_jobs.lazy") == names("ray_jobs.b") | names("ray_jobs.lazy")


@pytest.mark.parametrize(
    ("changed", "differs"),
    [("a.py", True), ("b.py", True), ("pack/c.py", True), ("other.py", False), ("lazy.py", False)],
)
def test_a_digest_changes_with_what_is_depended_on(root: Path, changed: str, differs: bool) -> None:
    before = code.digest("ray_jobs.a")
    (root / changed).write_text((root / changed).read_text() + "\n")
    assert (code.digest("ray_jobs.a") != before) == differs


def test_a_renamed_file_of_the_same_content_is_other_code(root: Path) -> None:
    before = code.digest("ray_jobs.b")
    (root / "b.py").rename(root / "bb.py")
    assert code.digest("ray_jobs.bb") != before


def test_functions_classes_and_modules_stand_for_their_file() -> None:
    function: Callable[..., str] = code.digest
    assert code.files(function) == code.files(code) == code.files("ray_jobs.code")


def test_what_is_not_ours_is_not_followed() -> None:
    with pytest.raises(AssertionError, match="not ours to follow"):
        code.files(Path)
