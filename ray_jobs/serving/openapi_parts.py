"""The parts that every path of a service's OpenAPI document is made of."""

from __future__ import annotations

from typing import Any

REFERENCE = "#/components/schemas/{model}"
TEXT = {"type": "string"}
WITH_A_KEY: dict[str, Any] = {"security": [{"key": []}]}
REFUSED = ("401", "403", "429")  # by the door
FAILURES = {
    "400": "not JSON",
    "401": "no key, or none that is valid here",
    "403": "a key that may not do this here",
    "408": "the body did not arrive in time",
    "409": "a state of another version; send the history instead",
    "413": "too large",
    "415": "another content type than application/json, or a body that is compressed",
    "422": "does not fit the schema",
    "429": "over the limit of the key; Retry-After says when to ask again",
    "500": "our fault",
    "503": "not ready, or too busy; try again",
}
# Whatever is asked with a body may be answered so.
ASKED = ("400", "408", "413", "415", "422", "500", "503", *REFUSED)


def got(name: str, summary: str, answer: dict[str, Any], *, keyed: bool, ready: bool) -> Any:
    """The operation of a page; `keyed`: a key is asked for; `ready`: it may be not yet."""
    responses = {"200": {"description": summary, "content": answer}}
    refused = [*(REFUSED if keyed else ()), *(["503"] if ready else ())]
    return {
        "get": {
            "summary": summary,
            "operationId": name,
            "responses": {**responses, **failures(*refused)},
            **(WITH_A_KEY if keyed else {}),
        }
    }


def failures(*codes: str) -> dict[str, Any]:
    """The responses of these codes, as problem documents."""
    problem = {"application/problem+json": {"schema": reference("Problem")}}
    return {code: {"description": FAILURES[code], "content": problem} for code in codes}


def reference(model: str) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(model=model)}


def content(schema: dict[str, Any]) -> dict[str, Any]:
    """A body of JSON."""
    return {"application/json": {"schema": schema}}


def list_of(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": schema, **more}


def an_object(*optional: str, **properties: Any) -> dict[str, Any]:
    """A schema of an object; its properties are required but for those named."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties}
