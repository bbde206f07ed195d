"""The only cache: a stage's result, kept under a digest of everything it depends on.

A stage writes into a folder of its own; the manifest, written last and at
once, is the commit. A folder without one is half-written and never read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

import orjson

from ray_jobs import store
from ray_jobs.errors import StoreError

log = logging.getLogger(__name__)

VERSION = 2  # of all stages: raise it when their meaning changes
FORMAT = 1  # of the store: raise it when an older Lyceum could not read it
MANIFEST = "manifest.json"


def digest(value: Any) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return hashlib.sha256(orjson.dumps(value, option=options)).hexdigest()


def once(
    store_uri: str,
    stage: str,
    inputs: dict[str, Any],
    work: Callable[[str], dict[str, Any]],
    *,
    fault: Callable[[dict[str, Any]], str] = lambda _: "",
) -> tuple[dict[str, Any], bool]:
    """The result of a stage for these inputs, and whether it was there already.

    `work` is given the URI of the stage's folder; what it returns is JSON. Files
    lie in that folder, or in the one that the result calls `uri`; where one of
    them is gone or cut short, or `fault` says what is wrong, the work is done again.
    """
    uri = folder(store_uri, stage, inputs)
    manifest = store.join(uri, MANIFEST)
    if store.exists(manifest):
        found: dict[str, Any] = store.read_json(manifest)
        wrong = _lost(found["files"]) or fault(found["result"])
        if not wrong:
            return found["result"], True
        log.warning("%s: made again, since %s", stage, wrong)
        for place in found["files"]:
            store.remove(store.join(place, MANIFEST))
    result = work(uri)
    files = {place: _sizes(place) for place in dict.fromkeys([uri, str(result.get("uri", uri))])}
    kept = {"stage": stage, "inputs": inputs, "files": files, "result": result}
    store.write_json(manifest, kept)
    return result, False


def kept(store_uri: str, stage: str) -> list[dict[str, Any]]:
    """What a stage was asked for (`inputs`) and found (`result`), each time that is kept.

    In the order of their keys, which says nothing.
    """
    return [made for uri in folders(store_uri, stage) if (made := made_in(uri))]


def folders(store_uri: str, stage: str) -> list[str]:
    """The folder of every result of a stage, half-written ones too, by key."""
    root = store.join(store_uri, "stages", stage)
    keys = {name.split("/")[0] for name in store.sizes(root) if "/" in name}
    return [store.join(root, key) for key in sorted(keys)]


def made_in(uri: str) -> dict[str, Any] | None:
    """What a stage said of its folder: `inputs` and `result`; None where it is half-written."""
    place = store.join(uri, MANIFEST)
    return dict(store.read_json(place)) if store.exists(place) else None


def stages(store_uri: str) -> list[str]:
    """The stages of which a store holds anything."""
    return sorted({name.split("/")[0] for name in store.sizes(store.join(store_uri, "stages"))})


def check(store_uri: str) -> None:
    """Raise StoreError for a store that a newer Lyceum wrote; a new store is marked as ours."""
    uri = store.join(store_uri, "format.json")
    if not store.exists(uri):
        store.write_json(uri, {"format": FORMAT})
        return
    found = store.read_json(uri)["format"]
    if found > FORMAT:
        raise StoreError(
            f"the store {store_uri} has format {found}, and this Lyceum reads up to {FORMAT}; "
            "upgrade Lyceum, or name another store with LYCEUM_STORE"
        )


def folder(store_uri: str, stage: str, inputs: dict[str, Any]) -> str:
    """Where a stage with these inputs keeps its result."""
    key = digest({"stage": stage, "version": VERSION, "inputs": inputs})
    return store.join(store_uri, "stages", stage, key[:24])


def _sizes(uri: str) -> dict[str, int]:
    """The files below a folder and their sizes in bytes, our own manifest aside.

    A name that begins with a dot is of a file that is being written, perhaps by another run.
    """
    there = store.sizes(uri).items()
    return {n: s for n, s in there if n != MANIFEST and not n.rsplit("/", 1)[-1].startswith(".")}


def _lost(files: dict[str, dict[str, int]]) -> str:
    """The first file that is not there as it was, or nothing."""
    for place, known in files.items():
        there = _sizes(place)
        for name, size in known.items():
            if there.get(name) != size:
                return f"{store.join(place, name)} is gone or not whole"
    return ""
