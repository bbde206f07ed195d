"""What the OpenAPI document says of the Open Inference Protocol's paths of a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_jobs.serving.openapi_parts import (
    ASKED,
    TEXT,
    WITH_A_KEY,
    an_object,
    content,
    failures,
    got,
    list_of,
    reference,
)
from ray_jobs.serving.tensors import BYTES, NUMBERS

FREE = {"type": "object", "description": "of the protocol, such as those of its binary extension"}
VALUES = list_of(
    {"type": ["string", "number", "boolean", "null"]},
    description="a value for each row; null for what is missing",
)
TENSOR = an_object(
    "parameters",
    "data",
    name=TEXT,
    datatype={"type": "string", "enum": [BYTES, *NUMBERS]},
    shape=list_of({"type": "integer"}, description="[rows], or [rows, 1]"),
    parameters=FREE,
    data=VALUES,
)
WANTED = an_object("parameters", name=TEXT, parameters=FREE)
SCHEMAS: dict[str, Any] = {
    "InferenceTensor": TENSOR,
    "InferenceRequest": an_object(
        "id",
        "parameters",
        "outputs",
        id=TEXT,
        parameters=FREE,
        inputs=list_of(reference("InferenceTensor"), minItems=1),
        outputs=list_of(WANTED, description="those wanted; all where none is named"),
    ),
    "InferenceResponse": an_object(
        "id",
        id=TEXT,
        model_name=TEXT,
        model_version=TEXT,
        parameters=an_object(lineage=TEXT),
        outputs=list_of(reference("InferenceTensor")),
    ),
    "InferenceModel": an_object(
        name=TEXT,
        versions=list_of(TEXT),
        platform=TEXT,
        inputs=list_of(reference("InferenceTensor")),
        outputs=list_of(reference("InferenceTensor")),
    ),
    "InferenceServer": an_object(name=TEXT, version=TEXT, extensions=list_of(TEXT)),
    "InferenceReady": an_object("name", name=TEXT, ready={"type": "boolean"}),
    "InferenceLive": an_object(live={"type": "boolean"}),
}
HEAD = {
    "name": "inference-header-content-length",
    "in": "header",
    "description": "how many bytes of the body are JSON, where tensors follow in binary",
    "schema": {"type": "integer", "minimum": 0},
}
OCTETS = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def paths(model: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paths of a model by its metadata, with these rows as example.

    Each is there below `versions/<version>` too, which a client made from the document
    would soon ask in vain.
    """
    below = f"/v2/models/{model['name']}"
    state = content(reference("InferenceReady"))
    ready = "The model answers a golden request rightly"
    inputs = "What the model takes and gives, as tensors"
    server, live = content(reference("InferenceServer")), content(reference("InferenceLive"))
    about = content(reference("InferenceModel"))
    return {
        "/v2": got("server", "Which server this is", server, keyed=True, ready=False),
        "/v2/health/live": got("live", "The replica is alive", live, keyed=False, ready=False),
        "/v2/health/ready": got("ready", ready, state, keyed=False, ready=True),
        below: got("inference_model", inputs, about, keyed=True, ready=False),
        f"{below}/ready": got("inference_ready", ready, state, keyed=False, ready=True),
        f"{below}/infer": {"post": _infer(_tensors(model, rows))},
    }


def _infer(example: dict[str, Any]) -> dict[str, Any]:
    asked = content(reference("InferenceRequest"))
    asked["application/json"]["example"] = example
    answered = {**content(reference("InferenceResponse")), **OCTETS}
    return {
        "summary": "Predict rows of a frame, for clients of the Open Inference Protocol",
        "operationId": "infer",
        "parameters": [HEAD],
        "requestBody": {"required": True, "content": {**asked, **OCTETS}},
        "responses": {
            "200": {"description": "a prediction for each row", "content": answered},
            **failures(*ASKED),
        },
        **WITH_A_KEY,
    }


def _tensors(model: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as the inputs of a request; columns that none of them has are left out."""
    inputs = []
    for one in model["inputs"]:
        values = [row.get(one["name"]) for row in rows]
        if any(value is not None for value in values):
            tensor = {"name": one["name"], "datatype": one["datatype"], "shape": [len(rows)]}
            inputs.append({**tensor, "data": values})
    return {"inputs": inputs}
