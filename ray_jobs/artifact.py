"""A trained model at rest: tensors, JSON and a manifest with every file's digest. No pickle.

The manifest is written last, names the rest, and has its own digest beside it:
a half-written artifact does not load, and a damaged one says where.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import orjson
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ray_jobs import node_cache, settings, store
from ray_jobs.errors import ArtifactError, UsageError
from ray_jobs.families import Family, family
from ray_jobs.recipe import as_dict, spec_from

log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"  # of the manifest, since nothing else would tell that it is damaged


@runtime_checkable
class WithFiles(Protocol):
    """A module that is more than its tensors."""

    def files(self) -> dict[str, bytes]:
        """What belongs beside the tensors, by file name."""

    def load_files(self, files: Mapping[str, bytes]) -> None:
        """Take back what `files` gave."""


@dataclass(frozen=True)
class Artifact:
    """A model in memory, ready to predict, with what is known of its making."""

    family: Family
    spec: Any
    vocabulary: Any
    module: nn.Module  # in eval mode
    about: dict[str, Any]  # lineage, data digest, seed and the like
    digest: str  # of the manifest, and so of every file


def write(
    folder: Path, *, kind: str, spec: Any, vocabulary: Any, module: nn.Module, about: dict[str, Any]
) -> str:
    """Write an artifact into a folder; returns its digest.

    A module with a format of its own, such as trees as text, keeps files beside its tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    files = {
        "weights.safetensors": save(tensors),
        "vocabulary.json": orjson.dumps(vocabulary.as_json()),
        **(module.files() if isinstance(module, WithFiles) else {}),
    }
    manifest = {
        "format": FORMAT,
        "family": kind,
        "spec": as_dict(spec),
        "about": about,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    data = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(data).hexdigest()
    for name, content in {**files, SEAL: digest.encode(), MANIFEST: data}.items():
        (folder / name).write_bytes(content)
    return digest


def read(folder: Path) -> Artifact:
    """Load an artifact; raises ArtifactError when it is missing, damaged or of another version."""
    manifest, digest = _manifest(folder)
    data = {name: _verified(folder / name, sha) for name, sha in manifest["files"].items()}
    try:
        kind = family(manifest["family"])
        spec = spec_from(manifest["spec"], kind.specs)
        vocabulary = kind.vocabulary_from_json(orjson.loads(data["vocabulary.json"]))
        module = spec.build(vocabulary)
        module.load_state_dict(_tensors(folder, data["weights.safetensors"]))
        if isinstance(module, WithFiles):
            module.load_files(data)
    except (UsageError, RuntimeError) as error:  # whole, but its family or spec has changed since
        raise ArtifactError(f"{folder} is of another Lyceum: {error}; train again") from error
    return Artifact(kind, spec, vocabulary, module.eval(), manifest["about"], digest)


def fetched(uri: str) -> Artifact:
    """Load an artifact from the store; from elsewhere it comes once to a node, by its digest.

    Raises ArtifactError when it is damaged, StoreError when nothing is there.
    """
    if store.is_local(uri):
        return read(store.fetch(uri, store.local_path(uri)))
    folder = _on_this_node(uri)
    try:
        return read(folder)
    except ArtifactError:  # it was whole when it came, and what reads it looks anyway
        return read(_on_this_node(uri, still_good=_is_whole))


def cache(home: Path) -> Path:
    """Where a node keeps models of a store that is elsewhere."""
    return home / "cache" / "models"


def _on_this_node(uri: str, still_good: Callable[[Path], bool] = lambda _: True) -> Path:
    digest = store.read_bytes(store.join(uri, SEAL)).decode("ascii", "replace")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ArtifactError(f"{uri}/{SEAL} is damaged; train again or roll back")

    def come(folder: Path) -> None:
        store.fetch(uri, folder)
        try:
            _must_be_whole(folder)
        except ArtifactError as error:
            raise ArtifactError(str(error).replace(str(folder), uri)) from error

    within = cache(settings.read().home)
    return node_cache.kept(within, digest, come, what="models", still_good=still_good)


def _is_whole(folder: Path) -> bool:
    try:
        _must_be_whole(folder)
    except ArtifactError as error:
        log.warning("%s; it is fetched again", error)
        return False
    return True


def _must_be_whole(folder: Path) -> None:
    for name, sha in _manifest(folder)[0]["files"].items():
        _verified(folder / name, sha)


def _manifest(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"no model artifact in {folder}: {MANIFEST} is missing")
    data = _verified(path, _bytes(folder / SEAL).decode("ascii", "replace"))
    manifest: dict[str, Any] = orjson.loads(data)
    if manifest["format"] > FORMAT:
        raise ArtifactError(
            f"{folder} has artifact format {manifest['format']}, this Lyceum reads up to {FORMAT}; "
            "upgrade Lyceum"
        )
    return manifest, hashlib.sha256(data).hexdigest()


def _verified(path: Path, sha: str) -> bytes:
    data = _bytes(path)
    if hashlib.sha256(data).hexdigest() != sha:
        raise ArtifactError(f"{path} does not match its digest; train again or roll back")
    return data


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:  # or taken away as damaged just now
        raise ArtifactError(
            f"{path} is missing from its artifact; train again or roll back"
        ) from error


def _tensors(folder: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except SafetensorError as error:
        raise ArtifactError(f"{folder}/weights.safetensors is damaged ({error})") from error
