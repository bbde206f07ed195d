"""What artifacts promise: they load to the same answers, whole, or say what is wrong."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from ray_jobs import artifact, store
from ray_jobs.artifact import MANIFEST, SEAL, Artifact
from ray_jobs.errors import ArtifactError
from ray_jobs.families import family
from ray_jobs.families.knowledge.networks import SPECS, Lstm
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.predictor import batches, predict

ABOUT = {"lineage": "abc", "seed": 3, "data": {"digest": "d"}}
KNOWLEDGE = family("knowledge")


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    rows = [
        {"learner": f"l{n}", "item": f"i{k % 4}", "skills": [f"s{k % 2}"], "correct": k % 3 / 2}
        for n in range(6)
        for k in range(1 + 2 * n)
    ]
    made = {"time": None, "position": 0, "bucket": 0, "split": None, "scored": True}
    return pl.DataFrame([{**row, **made} for row in rows], schema=CLEAN)


@pytest.fixture(scope="module")
def spec() -> Lstm:
    return Lstm(width=8, neighbours=0)


@pytest.fixture
def folder(table: pl.DataFrame, spec: Lstm, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    vocabulary = KNOWLEDGE.vocabulary([table])
    artifact.write(
        tmp_path / "model",
        kind="knowledge",
        spec=spec,
        vocabulary=vocabulary,
        module=spec.build(vocabulary),
        about=ABOUT,
    )
    return tmp_path / "model"


def test_an_artifact_comes_back_as_it_was(folder: Path, table: pl.DataFrame, spec: Lstm) -> None:
    model = artifact.read(folder)
    assert (model.family, model.spec, model.about) == (KNOWLEDGE, spec, ABOUT)
    assert model.vocabulary == KNOWLEDGE.vocabulary([table])
    assert not model.module.training
    torch.manual_seed(0)
    made = spec.build(model.vocabulary).eval()
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, model.module.state_dict()[name])
    examples = KNOWLEDGE.examples(table, model.vocabulary)
    same = Artifact(KNOWLEDGE, spec, model.vocabulary, made, ABOUT, "")
    for one, two in zip(predict(model, examples), predict(same, examples), strict=True):
        assert np.array_equal(one, two)


def test_the_same_model_has_the_same_digest_and_another_has_another(
    folder: Path, tmp_path: Path
) -> None:
    model = artifact.read(folder)

    def written(about: dict[str, Any], module: torch.nn.Module) -> str:
        return artifact.write(
            tmp_path / "again",
            kind="knowledge",
            spec=model.spec,
            vocabulary=model.vocabulary,
            module=module,
            about=about,
        )

    for about in (ABOUT, dict(reversed(ABOUT.items()))):
        assert written(about, model.module) == model.digest
    assert written({**ABOUT, "seed": 4}, model.module) != model.digest
    next(model.module.parameters()).data.add_(1e-3)
    assert written(ABOUT, model.module) != model.digest


def test_weights_that_share_their_memory_are_written_apart(
    table: pl.DataFrame, tmp_path: Path
) -> None:
    tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    first, second = tied
    assert isinstance(first, torch.nn.Linear)
    assert isinstance(second, torch.nn.Linear)
    second.weight = first.weight
    artifact.write(
        tmp_path,
        kind="knowledge",
        spec=Lstm(),
        vocabulary=KNOWLEDGE.vocabulary([table]),
        module=tied,
        about={},
    )
    found = load((tmp_path / "weights.safetensors").read_bytes())
    assert torch.equal(found["0.weight"], first.weight)
    assert torch.equal(found["1.weight"], first.weight)


def test_an_artifact_travels_over_a_store(folder: Path, tmp_path: Path) -> None:
    uri = f"memory://{tmp_path.name}/artifact"
    store.put_folder(folder, uri)
    assert artifact.read(store.fetch(uri, tmp_path / "back")).digest == artifact.read(folder).digest


@pytest.fixture
def elsewhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The artifact on a store that is not this machine's disk."""
    monkeypatch.setenv("LYCEUM_HOME", str(tmp_path / "home"))
    uri = f"memory://{tmp_path.name}/elsewhere"
    store.put_folder(folder, uri)
    return uri


def test_a_model_comes_to_a_node_once(
    elsewhere: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[str] = []
    fetch = store.fetch
    monkeypatch.setattr(store, "fetch", lambda uri, into: came.append(uri) or fetch(uri, into))  # type: ignore[func-returns-value]
    with ThreadPoolExecutor(4) as pool:  # as replicas that start together
        found = list(pool.map(artifact.fetched, [elsewhere] * 4))
    assert {model.digest for model in found} == {artifact.read(folder).digest}
    assert came == [elsewhere]


def test_a_model_that_changed_on_the_store_is_not_taken_from_the_node(
    elsewhere: str, table: pl.DataFrame, tmp_path: Path
) -> None:
    before = artifact.fetched(elsewhere).digest
    other, words = Lstm(width=4, neighbours=0), KNOWLEDGE.vocabulary([table])
    place, module = tmp_path / "other", other.build(words)
    artifact.write(
        place, kind="knowledge", spec=other, vocabulary=words, module=module, about=ABOUT
    )
    store.put_folder(place, elsewhere)
    assert artifact.fetched(elsewhere).digest == artifact.read(place).digest != before


def test_a_copy_that_was_damaged_on_the_node_comes_again(
    elsewhere: str, folder: Path, tmp_path: Path
) -> None:
    artifact.fetched(elsewhere)
    (copy,) = (tmp_path / "home").rglob("weights.safetensors")
    copy.write_bytes(b"half")
    assert artifact.fetched(elsewhere).digest == artifact.read(folder).digest


def test_those_who_find_it_damaged_together_do_not_take_it_from_each_other(
    elsewhere: str, folder: Path, tmp_path: Path
) -> None:
    artifact.fetched(elsewhere)
    (copy,) = (tmp_path / "home").rglob("weights.safetensors")
    copy.unlink()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(artifact.fetched, [elsewhere] * 8))
    assert {model.digest for model in found} == {artifact.read(folder).digest}


@pytest.mark.parametrize("name", [SEAL, MANIFEST, "weights.safetensors"])
def test_a_copy_that_is_taken_away_while_it_is_read_comes_again(
    name: str, elsewhere: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "home" / "cache" / "models" / artifact.fetched(elsewhere).digest
    read = Path.read_bytes

    def taken(path: Path) -> bytes:
        if path == copy / name and not gone:
            gone.append(path)
            shutil.rmtree(copy)  # as by another replica, which found it damaged
        return read(path)

    gone: list[Path] = []
    monkeypatch.setattr(Path, "read_bytes", taken)
    assert artifact.fetched(elsewhere).digest == artifact.read(folder).digest
    assert gone


def test_what_is_damaged_on_the_store_is_named_there_and_not_kept(
    elsewhere: str, tmp_path: Path
) -> None:
    store.write_bytes(f"{elsewhere}/vocabulary.json", b"{}")
    with pytest.raises(ArtifactError, match=f"{elsewhere}/vocabulary.json does not match"):
        artifact.fetched(elsewhere)
    store.write_bytes(f"{elsewhere}/{SEAL}", b"../../elsewhere")
    with pytest.raises(ArtifactError, match=f"{elsewhere}/{SEAL} is damaged"):
        artifact.fetched(elsewhere)
    left = (tmp_path / "home" / "cache" / "models").iterdir()
    assert [path.name for path in left if not path.name.endswith(".half")] == ["lock"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_byte_can_change_unseen(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ other]) + whole[at + 1 :])
    with pytest.raises(ArtifactError, match="does not match its digest"):
        artifact.read(folder)
    path.write_bytes(whole)


@pytest.mark.parametrize("name", [MANIFEST, SEAL, "weights.safetensors", "vocabulary.json"])
def test_a_missing_or_half_written_file_is_named(name: str, folder: Path) -> None:
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="does not match its digest; train again or roll back"):
        artifact.read(folder)
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{name}.*is missing"):
        artifact.read(folder)


def test_a_folder_without_an_artifact_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no model artifact in"):
        artifact.read(tmp_path / "nowhere")


def amended(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """An artifact that is whole, but says something else."""
    values = orjson.loads((folder / MANIFEST).read_bytes())
    change(values)
    data = orjson.dumps(values)
    (folder / MANIFEST).write_bytes(data)
    (folder / SEAL).write_text(hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "artifact format 99, this Lyceum reads up to 1; upgrade"),
        (lambda m: m.update(family="geometry"), "no family 'geometry'"),
        (lambda m: m["spec"].update(name="rnn"), "no spec 'rnn'"),
        (lambda m: m["spec"].update(heads=4), "not of this version"),
        (lambda m: m["spec"].update(width=16), "size mismatch"),
    ],
)
def test_an_artifact_of_another_version_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, folder: Path
) -> None:
    amended(folder, change)
    with pytest.raises(ArtifactError, match=message):
        artifact.read(folder)


@pytest.mark.parametrize("name", SPECS)
def test_an_artifact_holds_tensors_and_json_and_no_pickle(
    name: str, table: pl.DataFrame, tmp_path: Path
) -> None:
    vocabulary = KNOWLEDGE.vocabulary([table])
    spec = SPECS[name]()
    module = spec.build(vocabulary)
    artifact.write(
        tmp_path, kind="knowledge", spec=spec, vocabulary=vocabulary, module=module, about={}
    )
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        assert not zipfile.is_zipfile(path), path  # as torch.save would write
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError)):
            Refusing(io.BytesIO(data)).load()
        if path.suffix == ".json":
            orjson.loads(data)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors", ".sha256"}


class Refusing(pickle.Unpickler):
    """Reads pickles without running anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise AssertionError(f"a pickle that calls {module}.{name}")


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_batches_hold_every_example_once_and_stay_within_their_cost(
    costs: list[int], batch_cost: int
) -> None:
    found = list(batches(costs, batch_cost))
    assert sorted(i for batch in found for i in batch) == list(range(len(costs)))
    for batch in found:
        assert len(batch) * max(costs[i] for i in batch) <= batch_cost or len(batch) == 1


@pytest.mark.parametrize("batch_cost", [1, 20, 10_000])
def test_predictions_come_in_the_order_asked_whatever_the_batches(
    batch_cost: int, folder: Path, table: pl.DataFrame
) -> None:
    model = artifact.read(folder)
    examples = list(KNOWLEDGE.examples(table, model.vocabulary))[::-1]
    together = predict(model, examples, batch_cost=batch_cost)
    for example, outcome in zip(examples, together, strict=True):
        (alone,) = predict(model, [example])
        assert np.allclose(alone, outcome, atol=1e-6)
        assert len(outcome) == len(example.items)
    assert predict(model, []) == []
