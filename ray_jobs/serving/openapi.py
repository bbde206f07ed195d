"""The OpenAPI 3.1 document of a service, made from its verbs, and a page that shows it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ray_jobs.serving import openapi_inference
from ray_jobs.serving.feedback import FeedbackRequest, FeedbackResponse
from ray_jobs.serving.openapi_parts import (
    ASKED,
    REFERENCE,
    TEXT,
    WITH_A_KEY,
    an_object,
    content,
    failures,
    got,
    list_of,
    reference,
)
from ray_jobs.serving.release import Release
from ray_jobs.verb import Verb

PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": {**TEXT, "description": "what is wrong, where, and what to do"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {**TEXT, "description": "where in the request (RFC 6901)"},
                    "detail": TEXT,
                },
            },
        },
        "error": {**TEXT, "description": "below v2: the detail, where its clients look for it"},
    },
}
STAMP = {
    "type": "object",
    "description": "which model answered",
    "required": ["version", "lineage"],
    "properties": {
        "version": {**TEXT, "description": "of the registry"},
        "lineage": {**TEXT, "description": "digest of recipe, data, code and seed"},
    },
}
RECEIPT = {
    "type": "object",
    "required": ["prediction_id"],
    "properties": {"prediction_id": {**TEXT, "description": "signed; send it back with feedback"}},
}
EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": "add the reasons of each answer",
    "schema": {"type": "boolean", "default": False},
}
KEYS = {
    "key": {"type": "http", "scheme": "bearer", "description": "of lyceum keys create"},
}
STATE = {"type": "object", "required": ["status"], "properties": {"status": TEXT}}


def document(
    release: Release, verbs: Mapping[str, Verb], prefix: str, model: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole document; its paths are below the service's prefix.

    `model` is what the Open Inference Protocol tells of it.
    """
    models = [(verb.request, "validation") for verb in verbs.values()]
    models += [(verb.response, "serialization") for verb in verbs.values()]
    models += [(FeedbackRequest, "validation"), (FeedbackResponse, "serialization")]
    _, schemas = models_json_schema(models, ref_template=REFERENCE)  # type: ignore[arg-type]
    own = {"Problem": PROBLEM, "Stamp": STAMP, "Receipt": RECEIPT, "State": STATE}
    own |= openapi_inference.SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{release.service} ({release.family})",
            "version": release.version or "candidate",
            "description": release.card.get("description", ""),
        },
        "servers": [{"url": prefix}],
        "paths": {
            **{f"/v1/{name}": {"post": _post(name, verb)} for name, verb in verbs.items()},
            **({"/v1/feedback": {"post": _feedback()}} if verbs["predict"].logged else {}),
            **_gets(),
            **openapi_inference.paths(model, _rows(verbs["predict"])),
        },
        "components": {"schemas": {**schemas["$defs"], **own}, "securitySchemes": KEYS},
    }


def page(openapi: Mapping[str, Any]) -> str:
    """A page of the document that needs nothing from elsewhere."""
    info, parts = openapi["info"], []
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            summary = html.escape(operation["summary"])
            parts.append(f"<h2><code>{method.upper()} {path}</code></h2><p>{summary}</p>")
    for name, schema in openapi["components"]["schemas"].items():
        text = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
        parts.append(f"<details><summary>{name}</summary><pre>{html.escape(text)}</pre></details>")
    title = html.escape(info["title"])
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "pre{background:#f4f4f4;padding:1rem;overflow:auto}h2{font-size:1rem}</style>"
        f"<h1>{title}</h1><p>Version {html.escape(info['version'])}. Machines read "
        f"<a href=openapi.json>openapi.json</a>.</p>{''.join(parts)}"
    )


def _rows(verb: Verb) -> list[dict[str, Any]]:
    """The example of a verb, as rows of a frame."""
    if verb.logged is None:
        return []
    request = verb.request.model_validate(verb.request.model_json_schema()["examples"][0])
    whose = {verb.logged.learner: "ada"} if verb.logged.learner else {}
    return [{**whose, **row} for row in verb.logged.rows(request)]


def _gets() -> dict[str, Any]:
    state = content({"allOf": [reference("State"), reference("Stamp")]})
    page = {"text/html": {"schema": TEXT}}
    whole = content({"type": "object"})
    card = "The model card: version, lineage, data, figures, schema"
    ready = "The replica answers a golden request rightly"
    return {
        "/v1/model": got("model", card, content(reference("Stamp")), keyed=True, ready=False),
        "/healthz": got("healthz", "The replica is alive", state, keyed=False, ready=False),
        "/readyz": got("readyz", ready, state, keyed=False, ready=True),
        "/openapi.json": got("openapi", "This document", whole, keyed=False, ready=False),
        "/docs": got("docs", "This document as a page", page, keyed=False, ready=False),
    }


def _post(name: str, verb: Verb) -> dict[str, Any]:
    answer = reference(verb.response.__name__)
    answered = answer if verb.keeps else {"allOf": [answer, reference("Receipt")]}
    return {
        "summary": verb.summary,
        "operationId": name,
        **({"parameters": [EXPLAIN]} if verb.explanation else {}),
        **_asked(verb.request),
        **_answered(
            {"oneOf": [answered, _many("answers", answered)]},
            *(["409"] if verb.remembers else []),
        ),
    }


def _feedback() -> dict[str, Any]:
    return {
        "summary": (FeedbackRequest.__doc__ or "").strip(),
        "operationId": "feedback",
        **_asked(FeedbackRequest),
        **_answered(reference("FeedbackResponse")),
    }


def _asked(request: type[BaseModel]) -> dict[str, Any]:
    """One request, or many, by whoever has a key."""
    one, example = reference(request.__name__), request.model_json_schema()["examples"][0]
    asked = {"schema": {"oneOf": [one, _many("instances", one)]}, "example": example}
    return {**WITH_A_KEY, "requestBody": {"required": True, "content": {"application/json": asked}}}


def _answered(schema: dict[str, Any], *more: str) -> dict[str, Any]:
    """What is said, and which model says so; or what may be wrong."""
    stamped = {"allOf": [schema, reference("Stamp")]}
    wrong = sorted({*ASKED, *more})
    answered = {"description": "answered", "content": content(stamped)}
    return {"responses": {"200": answered, **failures(*wrong)}}


def _many(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return an_object(**{name: list_of(schema, minItems=1)})
