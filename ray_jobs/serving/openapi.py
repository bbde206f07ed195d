"""The OpenAPI 3.1 document of a service, made from its verbs, and a page that shows it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ray_jobs.serving.feedback import FeedbackRequest, FeedbackResponse
from ray_jobs.serving.release import Release
from ray_jobs.verb import Verb

REFERENCE = "#/components/schemas/{model}"
TEXT = {"type": "string"}
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
WITH_A_KEY: dict[str, Any] = {"security": [{"key": []}]}
REFUSED = ("401", "403", "429")  # by the door
STATE = {"type": "object", "required": ["status"], "properties": {"status": TEXT}}
FAILURES = {
    "400": "not JSON",
    "401": "no key, or none that is valid here",
    "403": "a key that may not do this here",
    "408": "the body did not arrive in time",
    "409": "a state of another version; send the history instead",
    "413": "too large",
    "415": "another content type than application/json",
    "422": "does not fit the schema",
    "429": "over the limit of the key; Retry-After says when to ask again",
    "500": "our fault",
    "503": "not ready, or too busy; try again",
}


def document(release: Release, verbs: Mapping[str, Verb], prefix: str) -> dict[str, Any]:
    """The whole document; its paths are below the service's prefix."""
    models = [(verb.request, "validation") for verb in verbs.values()]
    models += [(verb.response, "serialization") for verb in verbs.values()]
    models += [(FeedbackRequest, "validation"), (FeedbackResponse, "serialization")]
    _, schemas = models_json_schema(models, ref_template=REFERENCE)  # type: ignore[arg-type]
    own = {"Problem": PROBLEM, "Stamp": STAMP, "Receipt": RECEIPT, "State": STATE}
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


def _gets() -> dict[str, Any]:
    state = {"allOf": [_reference("State"), _reference("Stamp")]}
    pages = {
        "v1/model": ("The model card: version, lineage, data, figures, schema", _json("Stamp")),
        "healthz": ("The replica is alive", _content(state)),
        "readyz": ("The replica answers a golden request rightly", _content(state)),
        "openapi.json": ("This document", _content({"type": "object"})),
        "docs": ("This document as a page", {"text/html": {"schema": TEXT}}),
    }
    paths: dict[str, Any] = {}
    for path, (summary, content) in pages.items():
        responses: dict[str, Any] = {"200": {"description": summary, "content": content}}
        if path == "readyz":
            responses |= _failures("503")
        name = path.removeprefix("v1/").removesuffix(".json")
        operation: dict[str, Any] = {
            "summary": summary,
            "operationId": name,
            "responses": responses,
        }
        if path == "v1/model":
            operation |= WITH_A_KEY
            responses |= _failures(*REFUSED)
        paths[f"/{path}"] = {"get": operation}
    return paths


def _post(name: str, verb: Verb) -> dict[str, Any]:
    answer = _reference(verb.response.__name__)
    answered = answer if verb.keeps else {"allOf": [answer, _reference("Receipt")]}
    return {
        "summary": verb.summary,
        "operationId": name,
        **({"parameters": [EXPLAIN]} if verb.explanation else {}),
        **_asked(verb.request),
        **_answered(
            {"oneOf": [answered, _list_of("answers", answered)]},
            *(["409"] if verb.remembers else []),
        ),
    }


def _feedback() -> dict[str, Any]:
    return {
        "summary": (FeedbackRequest.__doc__ or "").strip(),
        "operationId": "feedback",
        **_asked(FeedbackRequest),
        **_answered(_reference("FeedbackResponse")),
    }


def _asked(request: type[BaseModel]) -> dict[str, Any]:
    """One request, or many, by whoever has a key."""
    one, example = _reference(request.__name__), request.model_json_schema()["examples"][0]
    asked = {"schema": {"oneOf": [one, _list_of("instances", one)]}, "example": example}
    return {**WITH_A_KEY, "requestBody": {"required": True, "content": {"application/json": asked}}}


def _answered(schema: dict[str, Any], *more: str) -> dict[str, Any]:
    """What is said, and which model says so; or what may be wrong."""
    stamped = {"allOf": [schema, _reference("Stamp")]}
    wrong = sorted({"400", "408", "413", "415", "422", "500", "503", *REFUSED, *more})
    answered = {"description": "answered", "content": _content(stamped)}
    return {"responses": {"200": answered, **_failures(*wrong)}}


def _list_of(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    items = {"type": "array", "items": schema, "minItems": 1}
    return {"type": "object", "required": [name], "properties": {name: items}}


def _failures(*codes: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _reference("Problem")}}
    return {code: {"description": FAILURES[code], "content": content} for code in codes}


def _reference(model: str) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(model=model)}


def _json(model: str) -> dict[str, Any]:
    return _content(_reference(model))


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
