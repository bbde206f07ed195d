"""What the cache promises: done once, done again when anything it depends on has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ray_jobs
from ray_jobs import manifest, store

INPUTS: dict[str, Any] = {"data": "d1", "seed": 0, "how": {"a": 1.0, "b": [1, 2]}}


class Stage:
    """Work that counts how often it was done, and writes a table."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, uri: str) -> dict[str, Any]:
        store.write_bytes(store.join(uri, "table"), b"rows")
        self.done.append(uri)
        return {"rows": len(self.done), "uri": uri}


def test_a_stage_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    stage, uri = Stage(), str(tmp_path)
    first, cached = manifest.once(uri, "clean", INPUTS, stage)
    assert not cached
    again, cached = manifest.once(uri, "clean", dict(reversed(INPUTS.items())), stage)
    assert cached
    assert again == first == {"rows": 1, "uri": stage.done[0]}


CHANGES: list[dict[str, Any]] = [
    {**INPUTS, "data": "d2"},
    {**INPUTS, "seed": 1},
    {**INPUTS, "how": {"a": 1.5, "b": [1, 2]}},
    {**INPUTS, "how": {"a": 1.0, "b": [2, 1]}},
    {**INPUTS, "more": None},
    {"data": "d1", "seed": 0},
]


@pytest.mark.parametrize("changed", CHANGES)
def test_any_other_input_is_another_result(changed: dict[str, Any], tmp_path: Path) -> None:
    stage, uri = Stage(), str(tmp_path)
    manifest.once(uri, "clean", INPUTS, stage)
    _, cached = manifest.once(uri, "clean", changed, stage)
    assert not cached
    assert len(set(stage.done)) == 2


def test_another_stage_or_version_is_another_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {manifest.folder(str(tmp_path), name, INPUTS) for name in ("clean", "split")}
    monkeypatch.setattr(manifest, "VERSION", manifest.VERSION + 1)
    folders.add(manifest.folder(str(tmp_path), "clean", INPUTS))
    assert len(folders) == 3


def test_a_stage_that_failed_is_done_again_over_what_it_left(tmp_path: Path) -> None:
    def failing(uri: str) -> dict[str, Any]:
        store.write_bytes(store.join(uri, "table"), b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        manifest.once(str(tmp_path), "clean", INPUTS, failing)
    stage = Stage()
    result, cached = manifest.once(str(tmp_path), "clean", INPUTS, stage)
    assert not cached
    assert store.read_bytes(store.join(result["uri"], "table")) == b"rows"


def test_a_result_without_its_manifest_is_not_believed(tmp_path: Path) -> None:
    stage = Stage()
    manifest.once(str(tmp_path), "clean", INPUTS, stage)
    store.remove(store.join(stage.done[0], "manifest.json"))
    _, cached = manifest.once(str(tmp_path), "clean", INPUTS, stage)
    assert (cached, len(stage.done)) == (False, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
)


@settings(deadline=None)
@given(JSON, JSON)
def test_digests_are_equal_for_equal_values_alone(one: Any, two: Any) -> None:
    # repr tells True from 1, as JSON does
    assert (manifest.digest(one) == manifest.digest(two)) == (spelt(one) == spelt(two))


def spelt(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{sorted((key, spelt(inner)) for key, inner in value.items())}}}"
    return repr([spelt(inner) for inner in value]) if isinstance(value, list) else repr(value)


def test_a_line_of_code_changes_what_was_made_with_it_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("families/a/x.py", "families/b/x.py", "train.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(ray_jobs, "__file__", str(tmp_path / "__init__.py"))
    parts = [("families/a",), ("families/b",), ("train.py",), ("families/a", "train.py")]
    before = [manifest.source_digest(*part) for part in parts]
    assert len(set(before)) == 4
    (tmp_path / "families/a/notes.txt").touch()
    assert [manifest.source_digest(*part) for part in parts] == before
    (tmp_path / "families/a/x.py").write_text("x = 2\n")
    after = [manifest.source_digest(*part) for part in parts]
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, True, True, False]
    (tmp_path / "families/b/x.py").rename(tmp_path / "families/b/y.py")
    assert manifest.source_digest("families/b") != before[1]
    with pytest.raises(AssertionError):
        manifest.source_digest("families/c")


def test_the_order_in_which_a_disk_lists_its_files_changes_no_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = manifest.source_digest("data", "training"), manifest.source_digest("training", "data")
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, glob: reversed(list(listed(path, glob))))
    assert {*before, manifest.source_digest("data", "training")} == {before[0]}
