"""The client and a real service, over a socket: what one promises the other keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import BaseModel

from ray_jobs.artifact import Artifact
from ray_jobs.client import (
    AnotherVersion,
    Answer,
    AsyncClient,
    Client,
    Feedback,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    Unauthorized,
)
from ray_jobs.serving import answering, keys, limits
from ray_jobs.serving.door import Door
from ray_jobs.serving.feedback import Recorder
from ray_jobs.serving.keys import Keyring
from ray_jobs.serving.surface import House, Surface
from tests.surface_parts import (
    KEY,
    SERVICE,
    listening,
    past,
    question,
    released,
    request,
    untrained,
)  # fmt: skip


class Chance(BaseModel):
    item: str
    probability: float


class Predictions(Answer):
    predictions: list[Chance]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return untrained(tmp_path_factory.mktemp("artifact"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a key of each kind on it."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def given(store: Path) -> dict[str, str]:
    """The texts of some keys."""
    make = {
        "all": {},
        "predict": {"actions": ["predict"]},
        "slow": {"per_second": 0.01, "burst": 1},
    }
    return {
        name: keys.create(str(store), name, [SERVICE], **more)[1]  # type: ignore[arg-type]
        for name, more in make.items()
    }


@contextmanager
def served(model: Artifact, store: Path, version: str = "7") -> Iterator[str]:
    ring = Keyring(str(store))
    ring.refresh()
    door = Door(SERVICE, KEY, ring, limits.alone())
    house = House(door=door, recorder=Recorder(str(store), SERVICE))
    with listening(Surface(model, released(model, version=version), KEY, house=house)) as url:
        yield url


@pytest.fixture(scope="module")
def url(model: Artifact, store: Path, given: dict[str, str]) -> Iterator[str]:
    with served(model, store) as one:
        yield one


@pytest.fixture
def client(url: str, given: dict[str, str]) -> Iterator[Client]:
    with Client(url, key=given["all"]) as one:
        yield one


def test_a_service_is_ready_and_tells_its_card(client: Client) -> None:
    assert client.ready()
    card = client.card()
    assert (card.service, card.version, card["metrics"]) == (SERVICE, "7", {"auc": {"value": 0.8}})
    assert set(card["schema"]) == {"predict", "mastery", "next", "state"}


def test_one_and_many_are_answered_alike_typed_and_with_reasons(client: Client) -> None:
    bodies = [request(n, candidates=2) for n in (0, 3, 50)]
    many = client.call_many("predict", bodies, answer=Predictions)
    for body, told in zip(bodies, many, strict=True):
        alone = client.call("predict", body, explain=True, answer=Predictions)
        chances = [one.probability for one in told.predictions]
        known = [one.probability for one in alone.predictions]
        np.testing.assert_allclose(chances, known, atol=1e-5)
        assert told.prediction_id
        assert (told.version, told.lineage, told.reasons) == ("7", "07" * 16, ())
        assert bool(alone.reasons) == bool(body["history"])


def test_pieces_that_cost_too_much_come_back_whole(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [request(n, candidates=1) for n in range(9)]
    known = [one["predictions"] for one in client.call_many("predict", bodies)]
    monkeypatch.setattr(answering, "MAX_COST", 20)
    told = [one["predictions"] for one in client.call_many("predict", bodies)]
    assert [one[0]["item"] for one in told] == [one[0]["item"] for one in known]
    np.testing.assert_allclose(
        [one[0]["probability"] for one in told], [one[0]["probability"] for one in known], atol=1e-5
    )


def test_feedback_is_on_the_store_when_it_is_acknowledged(client: Client, store: Path) -> None:
    first, second = (client.predict(**request(n, candidates=2)) for n in (1, 2))
    assert client.feedback(first.prediction_id, [1, None], time_s=1.8e9) == 1
    told = [Feedback(first.prediction_id, [1]), Feedback(second.prediction_id, [0, 0.5])]
    assert client.feedback_many(told) == 3
    files = list((store / "feedback").rglob("*.parquet"))
    kept = pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])
    assert len(kept.unique(["id", "position"])) == 3


def test_what_is_wrong_is_told_by_its_place(client: Client) -> None:
    bodies = [request(), {"history": [{"item": "a"}], "candidates": [question(0)]}]
    with pytest.raises(InvalidRequest, match=r"422 .*/instances/1/history/0/correct") as caught:
        client.call_many("predict", bodies)
    assert caught.value.errors[0].pointer == "/instances/1/history/0/correct"
    with pytest.raises(NotFound, match=r"no 'v1/predcit' here; below .* there are v1/predict"):
        client.call("predcit", {})


def test_a_state_of_another_version_is_told_apart(
    client: Client, model: Artifact, store: Path, given: dict[str, str]
) -> None:
    state = client.call("state", {"history": past(3)})
    assert state.prediction_id is None
    body = {"state": state["state"], "history": [], "candidates": [question(0)]}
    assert client.call("predict", body)["predictions"]
    with served(model, store, "8") as newer, Client(newer, key=given["all"]) as another:
        assert another.predict(**request()).version == "8"
        with pytest.raises(AnotherVersion):
            another.call("predict", body)


def test_who_may_not_is_told_so(url: str, given: dict[str, str]) -> None:
    with Client(url, key="lyc_nobody") as nobody, pytest.raises(Unauthorized, match="keys create"):
        nobody.predict(**request())
    with Client(url, key=given["predict"]) as narrow:
        told = narrow.predict(**request())
        with pytest.raises(Forbidden, match="this key may not do that here"):
            narrow.feedback(told.prediction_id, [1])
    with Client(url, key=given["slow"]) as slow:
        slow.predict(**request())
        with pytest.raises(RateLimited) as caught:
            slow.predict(**request())
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 30


def test_the_asynchronous_client_hears_the_same(
    client: Client, url: str, given: dict[str, str]
) -> None:
    bodies = [request(n) for n in range(8)]

    async def asked() -> list[Answer]:
        async with AsyncClient(url, key=given["all"]) as one:
            assert await one.ready()
            assert (await one.card()).version == "7"
            return await asyncio.gather(*(one.predict(**body) for body in bodies))

    for body, told in zip(bodies, asyncio.run(asked()), strict=True):
        (known,), (heard,) = client.predict(**body)["predictions"], told["predictions"]
        assert heard["probability"] == pytest.approx(known["probability"], abs=1e-5)
