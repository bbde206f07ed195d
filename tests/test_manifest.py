"""What the cache promises: done once, done again when anything it depends on has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
