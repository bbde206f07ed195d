"""The only cache: a stage's result, kept under a digest of everything it depends on.

A stage writes into a folder of its own; the manifest, written last and at
once, is the commit. A folder without one is half-written and never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

import ray_jobs
from ray_jobs import store

VERSION = 1  # of all stages: raise it when their meaning changes


def digest(value: Any) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return hashlib.sha256(orjson.dumps(value, option=options)).hexdigest()


def source_digest(*parts: str) -> str:
    """SHA-256 of the Python sources below parts of this package, such as `families/x`."""
    root = Path(ray_jobs.__file__).parent
    files = sorted(f for part in parts for f in _sources(root / part))
    named = [(f.relative_to(root).as_posix(), f.read_bytes()) for f in files]
    total = hashlib.sha256()
    for name, data in named:
        total.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return total.hexdigest()


def once(
    store_uri: str, stage: str, inputs: dict[str, Any], work: Callable[[str], dict[str, Any]]
) -> tuple[dict[str, Any], bool]:
    """The result of a stage for these inputs, and whether it was there already.

    `work` is given the URI of the stage's folder; what it returns is JSON.
    """
    uri = folder(store_uri, stage, inputs)
    manifest = store.join(uri, "manifest.json")
    if store.exists(manifest):
        result: dict[str, Any] = store.read_json(manifest)["result"]
        return result, True
    result = work(uri)
    store.write_json(manifest, {"stage": stage, "inputs": inputs, "result": result})
    return result, False


def folder(store_uri: str, stage: str, inputs: dict[str, Any]) -> str:
    """Where a stage with these inputs keeps its result."""
    key = digest({"stage": stage, "version": VERSION, "inputs": inputs})
    return store.join(store_uri, "stages", stage, key[:24])


def _sources(path: Path) -> list[Path]:
    assert path.exists(), path  # else a misspelt part would change nothing
    return [path] if path.is_file() else list(path.rglob("*.py"))
