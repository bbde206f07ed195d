"""Clients that others wrote, from the protocol or from our document, get right answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from ray_jobs.artifact import Artifact
from ray_jobs.serving import keys, limits
from ray_jobs.serving.door import Door
from ray_jobs.serving.feedback import Recorder
from ray_jobs.serving.keys import Keyring
from ray_jobs.serving.surface import House, Surface
from tests.surface_parts import KEY, SERVICE, listening, past, question, released

ROWS = 6
CASES = 40  # of each operation


@pytest.fixture(scope="module")
def at(model: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL of a service that asks for keys, and the header that lets one in."""
    store = str(tmp_path_factory.mktemp("store"))
    _, key = keys.create(store, "test", [SERVICE])
    ring = Keyring(store)
    ring.refresh()
    door = Door(SERVICE, KEY, ring, limits.alone())
    house = House(door=door, recorder=Recorder(store, SERVICE))
    with listening(Surface(model, released(model), KEY, house=house)) as url:
        yield url, f"Bearer {key}"


def inputs(*, binary: bool) -> list[InferInput]:
    rows = [*past(ROWS - 1), question(7)]
    columns: dict[str, np.ndarray[Any, Any]] = {
        "learner": np.array(["ada"] * ROWS, object),
        "item": np.array([row["item"] for row in rows], object),
        "skills": np.array([";".join(row["skills"]) for row in rows], object),
        "correct": np.array([row.get("correct", np.nan) for row in rows], np.float64),
    }
    found = []
    for name, values in columns.items():
        tensor = InferInput(name, [ROWS], "FP64" if values.dtype == np.float64 else "BYTES")
        tensor.set_data_from_numpy(values, binary_data=binary or name == "correct")
        found.append(tensor)
    return found


@pytest.mark.parametrize("binary", [True, False])
def test_a_client_of_triton_is_answered_as_ours_are(at: tuple[str, str], binary: bool) -> None:
    url, key = at
    body = {"history": past(ROWS - 1), "candidates": [question(7)]}
    ours = httpx.post(f"{url}/v1/predict", json=body, headers={"authorization": key}).json()
    with InferenceServerClient(url.removeprefix("http://")) as client:
        headers = {"authorization": key}
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(SERVICE)
        about = client.get_model_metadata(SERVICE, headers=headers)
        assert about["outputs"][0]["name"] == "probability"
        asked = [InferRequestedOutput("probability", binary_data=binary)]
        told = client.infer(SERVICE, inputs(binary=binary), headers=headers, outputs=asked)
        assert told.get_response()["model_version"] == "7"
        last = float(told.as_numpy("probability")[-1])
    assert last == pytest.approx(ours["predictions"][0]["probability"], abs=1e-5)


def test_a_client_of_triton_is_told_what_is_wrong(at: tuple[str, str]) -> None:
    url, key = at
    with InferenceServerClient(url.removeprefix("http://")) as client:
        with pytest.raises(InferenceServerException, match="send a key of this service"):
            client.infer(SERVICE, inputs(binary=True))
        tensor = InferInput("pupil", [1], "BYTES")
        tensor.set_data_from_numpy(np.array(["ada"], object))
        with pytest.raises(InferenceServerException, match="expected one of learner, item"):
            client.infer(SERVICE, [tensor], headers={"authorization": key})


# What the document says, and what is answered.


def test_whatever_the_document_allows_is_answered_as_it_says(at: tuple[str, str]) -> None:
    url, key = at
    schema: Any = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = list(schema.get_all_operations())
    assert len(found) > 8
    for operation in found:

        @given(case=operation.ok().as_strategy())
        @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
        def answered(case: Any) -> None:
            # No schema says whether a token is genuine, or a history in order.
            excluded = [positive_data_acceptance]
            case.call_and_validate(headers={"Authorization": key}, excluded_checks=excluded)

        answered()
