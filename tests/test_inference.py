"""Clients of KServe and Triton are answered as those of v1 are, in JSON and in bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from ray_jobs.artifact import Artifact
from ray_jobs.predictor import predict
from ray_jobs.serving import tensors
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.inference import Inference
from ray_jobs.serving.surface import Surface
from tests.surface_parts import KEY, SERVICE, Ask, asking, past, question, released

INFER = f"v2/models/{SERVICE}/infer"
ROWS = 5


@pytest.fixture(scope="module")
def ask(model: Artifact) -> Iterator[Ask]:
    with asking(Surface(model, released(model), KEY)) as one:
        yield one


def tensor(name: str, data: list[Any], datatype: str = "BYTES") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def frame() -> list[dict[str, Any]]:
    """Four answers of one learner, and a question."""
    rows = [*past(ROWS - 1), question(7)]
    return [
        tensor("learner", ["ada"] * ROWS),
        tensor("item", [row["item"] for row in rows]),
        tensor("skills", [";".join(row["skills"]) for row in rows]),
        tensor("correct", [float(row.get("correct", "nan")) for row in rows], "FP64"),
    ]


def with_null(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """NaN has no JSON; null stands for it."""
    return [
        {**one, "data": [None if v != v else v for v in one["data"]]}  # noqa: PLR0124
        for one in inputs
    ]


def known(ask: Ask) -> float:
    """What v1 says to the same question."""
    body = {"history": past(ROWS - 1), "candidates": [question(7)]}
    told: float = ask("POST", "v1/predict", body).json()["predictions"][0]["probability"]
    return told


def test_a_question_among_answers_is_answered_as_v1_answers_it(ask: Ask) -> None:
    told = ask("POST", INFER, {"id": "42", "inputs": with_null(frame())}).json()
    assert (told["model_name"], told["model_version"], told["id"]) == (SERVICE, "7", "42")
    assert told["parameters"] == {"lineage": "07" * 16}
    (output,) = told["outputs"]
    assert (output["name"], output["datatype"]) == ("probability", "FP64")
    assert output["shape"] == [ROWS]
    assert output["data"][-1] == pytest.approx(known(ask), abs=1e-5)
    by_version = ask(
        "POST", f"v2/models/{SERVICE}/versions/7/infer", {"inputs": with_null(frame())}
    )
    assert by_version.json()["outputs"] == told["outputs"]


def packed(inputs: list[dict[str, Any]], **more: Any) -> tuple[bytes, str]:
    """The same with binary data, and the length of its document."""
    behind = b""
    told = []
    for one in inputs:
        if one["datatype"] == "BYTES":
            texts = [text.encode() for text in one["data"]]
            data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        else:
            data = np.array(one["data"], tensors.NUMBERS[one["datatype"]]).tobytes()
        head = {k: v for k, v in one.items() if k != "data"}
        told.append({**head, "parameters": {"binary_data_size": len(data)}})
        behind += data
    document = orjson.dumps({"inputs": told, **more})
    return document + behind, str(len(document))


def test_binary_tensors_are_answered_as_those_in_json(ask: Ask) -> None:
    body, length = packed(frame(), parameters={"binary_data_output": True})
    told = ask("POST", INFER, body, **{"inference-header-content-length": length})
    assert told.status_code == 200, told.text
    head = int(told.headers["inference-header-content-length"])
    (output,) = orjson.loads(told.content[:head])["outputs"]
    values = np.frombuffer(told.content[head:], "<f8")
    assert output["parameters"]["binary_data_size"] == len(told.content) - head == 8 * ROWS
    plain = ask("POST", INFER, {"inputs": with_null(frame())}).json()["outputs"][0]["data"]
    np.testing.assert_allclose(values, plain, atol=1e-6)
    assert values[-1] == pytest.approx(known(ask), abs=1e-5)


def test_an_output_may_be_named_and_have_its_own_form(ask: Ask) -> None:
    output = {"name": "probability", "parameters": {"binary_data": True}}
    told = ask("POST", INFER, {"inputs": with_null(frame()), "outputs": [output]})
    assert "inference-header-content-length" in told.headers
    body, length = packed(frame(), outputs=[{"name": "probability"}])
    plain = ask("POST", INFER, body, **{"inference-header-content-length": length})
    assert len(plain.json()["outputs"][0]["data"]) == ROWS


def test_the_model_is_told_as_the_protocol_says(ask: Ask) -> None:
    about = ask("GET", f"v2/models/{SERVICE}").json()
    assert (about["name"], about["versions"]) == (SERVICE, ["7"])
    assert {one["name"]: one["datatype"] for one in about["inputs"]}["correct"] == "FP64"
    assert [one["name"] for one in about["outputs"]] == ["probability"]
    assert ask("GET", "v2").json()["extensions"] == ["binary_tensor_data"]
    for path in ("health/live", "health/ready", f"models/{SERVICE}/ready"):
        assert ask("GET", f"v2/{path}").status_code == 200
    assert ask("GET", "v2/models/geometry").status_code == 404
    assert ask("GET", "v2/health/ready").json() == {"ready": True}
    assert ask("GET", f"v2/models/{SERVICE}/ready").json() == {"name": SERVICE, "ready": True}


def wrong(**changed: Any) -> list[dict[str, Any]]:
    return [with_null(frame())[0] | changed, *with_null(frame())[1:]]


WRONG: dict[str, tuple[Any, str]] = {
    "no inputs": ({}, "/inputs"),
    "inputs are an object": ({"inputs": {}}, "/inputs"),
    "an input is a text": ({"inputs": ["a"]}, "/inputs/0"),
    "no such column": ({"inputs": wrong(name="pupil")}, "/inputs/0/name"),
    "the same column twice": ({"inputs": wrong(name="item")}, "/inputs/1/name"),
    "no such type": ({"inputs": wrong(datatype="TEXT")}, "/inputs/0/datatype"),
    "a type that is a list": ({"inputs": wrong(datatype=[])}, "/inputs/0/datatype"),
    "a text that is no number": (
        {"inputs": [*with_null(frame())[:3], tensor("correct", ["yes"] * ROWS)]},
        "/inputs",
    ),
    "no shape": ({"inputs": wrong(shape=None)}, "/inputs/0/shape"),
    "two columns in one": ({"inputs": wrong(shape=[1, 5])}, "/inputs/0/shape"),
    "below nothing": ({"inputs": wrong(shape=[-1])}, "/inputs/0/shape"),
    "true is no number of rows": ({"inputs": wrong(shape=[True])}, "/inputs/0/shape"),
    "a million rows": ({"inputs": wrong(shape=[10**6])}, "/inputs/0/shape"),
    "too few values": ({"inputs": wrong(data=["a"])}, "/inputs/0/data"),
    "a number for a text": ({"inputs": wrong(data=[1, 2, 3, 4, 5])}, "/inputs/0/data/0"),
    "rows differ": ({"inputs": wrong(shape=[1], data=["a"])}, "/inputs"),
    "nobody's answer": ({"inputs": wrong(data=[None] * 5)}, "/inputs"),
    "a column is missing": ({"inputs": with_null(frame())[1:]}, "/inputs"),
    "bytes that are not there": (
        {"inputs": wrong(parameters={"binary_data_size": 9})},
        "/inputs/0/parameters/binary_data_size",
    ),
    "parameters are a list": ({"inputs": wrong(parameters=[])}, "/inputs/0/parameters"),
    "no such output": ({"inputs": with_null(frame()), "outputs": [{"name": "p"}]}, "/outputs/0"),
    "outputs are an object": ({"inputs": with_null(frame()), "outputs": {"a": 1}}, "/outputs"),
}


def refused(told: httpx.Response, status: int, where: str) -> None:
    assert told.status_code == status, told.text
    problem = told.json()
    assert problem["errors"][0]["pointer"] == where
    assert problem["error"] == problem["detail"], "as clients of the protocol read it"


@pytest.mark.parametrize(("body", "where"), WRONG.values(), ids=WRONG)
def test_what_is_no_request_is_told_with_where(ask: Ask, body: Any, where: str) -> None:
    refused(ask("POST", INFER, body), 422, where)


def test_numbers_may_come_as_texts(ask: Ask) -> None:
    *others, correct = with_null(frame())
    texts = ["" if v is None else str(v) for v in correct["data"]]
    told = ask("POST", INFER, {"inputs": [*others, tensor("correct", texts)]}).json()
    assert told["outputs"][0]["data"][-1] == pytest.approx(known(ask), abs=1e-6)


@pytest.mark.parametrize("datatype", ["INT64", "FP64"])
def test_numbers_are_names_to_the_last_digit(model: Artifact, datatype: str) -> None:
    inference = Inference(model, released(model), Batcher(model), 1000)
    numbers: list[float] = [1_234_567, 12_345_678_901_234, 7]
    if datatype == "FP64":
        numbers = [float(number) for number in numbers]
    plain = inference._plain("learner", numbers)
    assert plain == ["1234567", "12345678901234", "7"]
    assert inference._plain("learner", [0.5, float("nan"), None]) == ["0.5", None, None]


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "", "9" * 5000])
def test_a_length_that_is_none_is_told(ask: Ask, length: str) -> None:
    told = ask("POST", INFER, {"inputs": frame()}, **{"inference-header-content-length": length})
    assert told.status_code == 400
    assert "inference-header-content-length" in told.json()["error"]


@pytest.mark.parametrize("cut", [1, 3, 5, 30])
def test_bytes_that_are_cut_short_are_told(ask: Ask, cut: int) -> None:
    body, length = packed(frame())
    told = ask("POST", INFER, body[:-cut], **{"inference-header-content-length": length})
    assert told.status_code == 422, told.text
    texts, head = packed([{**frame()[0], "data": ["ada"] * ROWS}])
    broken = bytearray(texts)
    broken[int(head)] = 255
    told = ask("POST", INFER, bytes(broken), **{"inference-header-content-length": head})
    assert told.status_code == 422, told.text


def test_many_questions_at_once_are_answered_like_each_alone(ask: Ask, model: Artifact) -> None:
    rows = [question(i) for i in range(50)]
    inputs = [
        tensor("learner", [f"learner {i}" for i in range(50)]),
        tensor("item", [row["item"] for row in rows]),
        tensor("skills", [";".join(row["skills"]) for row in rows]),
    ]
    told = ask("POST", INFER, {"inputs": inputs}).json()["outputs"][0]["data"]
    verb = model.family.api.verbs(model.vocabulary)["predict"]
    for row, one in zip(rows, told, strict=True):
        body = verb.request.model_validate({"candidates": [row]})
        (outcome,) = predict(model, verb.examples(body, model.vocabulary))
        assert one == pytest.approx(float(outcome[0]), abs=1e-5)
