"""The OpenAPI 3.1 document of a service, made from its verbs, and a page that shows it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic.json_schema import models_json_schema

from ray_jobs.serving.release import Release
from ray_jobs.verb import Verb

REFERENCE = "#/components/schemas/{model}"
PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
STAMP = {
    "type": "object",
    "required": ["version", "lineage"],
    "properties": {"version": {"type": "string"}, "lineage": {"type": "string"}},
}
GETS = {
    "v1/model": "The model card: version, lineage, data, figures, schema",
    "healthz": "The replica is alive",
    "readyz": "The replica answers a golden request rightly",
    "openapi.json": "This document",
    "docs": "This document as a page",
}


def document(release: Release, verbs: Mapping[str, Verb]) -> dict[str, Any]:
    """The whole document; paths are below the service's prefix."""
    models = [(verb.request, "validation") for verb in verbs.values()]
    models += [(verb.response, "serialization") for verb in verbs.values()]
    _, schemas = models_json_schema(models, ref_template=REFERENCE)  # type: ignore[arg-type]
    paths: dict[str, Any] = {
        f"/v1/{name}": {"post": _post(name, verb)} for name, verb in verbs.items()
    }
    for path, summary in GETS.items():
        paths[f"/{path}"] = {
            "get": {"summary": summary, "responses": {"200": {"description": summary}}}
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{release.service} ({release.family})",
            "version": release.version or "candidate",
            "description": release.card.get("description", ""),
        },
        "servers": [{"url": f"/{release.service}"}],
        "paths": paths,
        "components": {"schemas": {**schemas["$defs"], "Problem": PROBLEM, "Stamp": STAMP}},
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


def _post(name: str, verb: Verb) -> dict[str, Any]:
    one = {"$ref": REFERENCE.format(model=verb.request.__name__)}
    answer = {"$ref": REFERENCE.format(model=verb.response.__name__)}
    many = {
        "type": "object",
        "required": ["instances"],
        "properties": {"instances": {"type": "array", "items": one, "minItems": 1}},
    }
    answers = {"type": "object", "properties": {"answers": {"type": "array", "items": answer}}}
    stamped = {"allOf": [{"oneOf": [answer, answers]}, {"$ref": REFERENCE.format(model="Stamp")}]}
    problem = {"schema": {"$ref": REFERENCE.format(model="Problem")}}
    failures = {"400": "not JSON", "413": "too large", "422": "does not fit the schema"}
    return {
        "summary": verb.summary,
        "operationId": name,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"oneOf": [one, many]}}},
        },
        "responses": {
            "200": {
                "description": "answered",
                "content": {"application/json": {"schema": stamped}},
            },
            **{
                code: {"description": text, "content": {"application/problem+json": problem}}
                for code, text in failures.items()
            },
        },
    }
