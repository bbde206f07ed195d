"""`lyceum erase`: what had learnt from a learner is flagged, and the receipt is told in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mlflow.tracking import MlflowClient

from flows import erase
from flows.audit import trail
from flows.platform.locks import held, lock
from ray_jobs.data.forgotten import forgotten
from ray_jobs.errors import PlatformError, UsageError
from ray_jobs.families.tabular.batch import Row, cost
from ray_jobs.serving import forgetting, journal
from ray_jobs.settings import Settings
from ray_jobs.training import shards
from tasks import register, tracking
from tests.data_parts import KEY, TIMED, School, csv, said
from tests.registry_parts import connected, registered
from tests.stages_parts import write_key

ANN = "ann@school.example"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "KNOWN_S", 0.0)


@pytest.fixture
def school(tmp_path: Path) -> School:
    write_key(tmp_path / "key", KEY.secret)
    return School(tmp_path, csv([*TIMED, (ANN, "i", "s", "1", "5")]) + f"\n{ANN};torn".encode())


@pytest.fixture
def settings(tmp_path: Path, school: School) -> Settings:
    return Settings(home=tmp_path / "home", store=school.store, key_file=tmp_path / "key")


@pytest.fixture
def client(settings: Settings, school: School) -> MlflowClient:
    """Two versions of a service, the first of them, and a run, trained on the school."""
    client = connected(settings)
    registered(client, settings, "algebra", 2)
    for version, digest in (("1", school.snapshot.digest), ("2", "other")):
        client.set_model_version_tag("algebra", version, "data_digest", digest)
    for digest in (school.snapshot.digest, "other"):
        client.create_run("0", tags={"data_digest": digest})
    return client


def test_versions_and_runs_that_had_learnt_from_them_say_so_and_no_others(
    school: School, settings: Settings, client: MlflowClient
) -> None:
    receipt = erase.erase(settings, f" {ANN}\n")
    assert receipt.versions == ["algebra version 1"]
    tags = [client.get_model_version("algebra", v).tags for v in ("1", "2")]
    assert [t.get(register.ERASED) for t in tags] == [receipt.learner, None]
    runs = client.search_runs(["0"])
    flagged = {run.data.tags["data_digest"]: run.data.tags.get(register.ERASED) for run in runs}
    assert flagged == {school.snapshot.digest: receipt.learner, "other": None}
    assert erase.erase(settings, ANN).versions == ["algebra version 1"]
    assert KEY.pseudonym(ANN) not in said(Path(school.store))


def test_what_began_from_who_had_learnt_from_them_says_so_too(
    settings: Settings, client: MlflowClient
) -> None:
    registered(client, settings, "geometry", 1)
    for service, version, tags in (
        ("algebra", "1", {tracking.LINEAGE: "first"}),
        ("algebra", "2", {tracking.LINEAGE: "second", register.PARENT: "first"}),
        ("geometry", "1", {register.PARENT: "second"}),
    ):
        for key, value in tags.items():
            client.set_model_version_tag(service, version, key, value)
    versions = erase.erase(settings, ANN).versions
    assert versions == ["algebra version 1", "algebra version 2", "geometry version 1"]


def test_the_receipt_is_told_in_words_and_names_nobody(
    school: School, settings: Settings, client: MlflowClient
) -> None:
    del client
    text = "\n".join(erase.told(erase.erase(settings, ANN)))
    for words in (
        f"snapshot {school.snapshot.name}",
        "removed: 1 readings of files, 1 results made of them, 0 mended rows",
        "algebra version 1 had learnt from them: run its recipe again",
    ):
        assert words in text
    assert ANN not in text
    assert KEY.pseudonym(ANN) not in text


def test_an_erasure_leaves_a_line_that_names_nobody_also_when_it_is_refused(
    settings: Settings, client: MlflowClient
) -> None:
    del client
    receipt = erase.erase(settings, ANN)
    with held(lock(settings, "algebra", "run"), "a run", print), pytest.raises(UsageError):
        erase.erase(settings, ANN)
    text = trail(settings).read_text()
    first, second = map(json.loads, text.splitlines())
    assert (first["act"], first["outcome"]) == ("erase", "done")
    assert first["receipt"] == second["receipt"] == receipt.learner
    assert first["versions"] == ["algebra version 1"]
    assert second["outcome"] == "refused"
    assert "a run" in second["reason"]
    assert [name for name in (ANN, KEY.pseudonym(ANN)) if name in text] == []


def test_nobody_is_erased_without_a_line(school: School, settings: Settings) -> None:
    trail(settings).mkdir(parents=True)
    with pytest.raises(PlatformError, match="nothing was done"):
        erase.erase(settings, ANN)
    assert Path(school.snapshot.uri).exists()


def test_nothing_is_removed_before_the_registry_was_told(
    school: School, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise PlatformError("MLflow does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(register, "flag", away)
        with pytest.raises(PlatformError, match="does not answer"):
            erase.erase(settings, ANN)
    assert Path(school.snapshot.uri).exists()
    erase.erase(settings, ANN)
    assert not Path(school.snapshot.uri).exists()


def test_examples_that_a_killed_training_left_on_this_machine_go(
    settings: Settings, client: MlflowClient
) -> None:
    del client
    left = shards.cache(settings.home) / "key"
    shards.pack(left, [[Row(np.zeros(2, np.float32), np.zeros(1, np.int64), 0.0, True)]], cost)
    assert (left / shards.RECORDS).stat().st_size
    erase.erase(settings, ANN)
    assert not left.exists()


def test_nobody_and_a_run_under_way_are_refused(settings: Settings) -> None:
    with pytest.raises(UsageError, match="give the id as the logs have it"):
        erase.erase(settings, " \n")
    with (
        held(lock(settings, "algebra", "run"), "another run of algebra", print),
        pytest.raises(UsageError, match=r"another run of algebra .* is under way"),
    ):
        erase.erase(settings, ANN)


def test_what_a_replica_writes_that_has_not_heard_of_it_yet_goes_too(
    school: School, settings: Settings, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    del client
    rows = pl.DataFrame({"learner": [KEY.alias(ANN), KEY.alias("ben")]})
    waited = []

    def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        assert len(forgotten(school.store, KEY).tombstones) == 1, "writers could know"
        journal.write(school.store, "feedback", "algebra", rows)

    monkeypatch.setattr(forgetting, "KNOWN_S", 4.0)
    monkeypatch.setattr("time.sleep", meanwhile)
    assert erase.erase(settings, ANN).answers == 1
    assert waited == [4.0]
    (file,) = Path(school.store, "feedback").rglob("*.parquet")
    assert pl.read_parquet(file)["learner"].to_list() == [KEY.alias("ben")]
