"""Errors over HTTP: RFC 9457 `application/problem+json`, saying what, where and what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from pydantic import ValidationError

CONTENT_TYPE = b"application/problem+json"
LONGEST_PART = 200  # characters of a pointer: a refusal does not echo what it refuses
SHOWN = 20  # of what is wrong with one request


class Problem(Exception):  # noqa: N818 - the standard's word
    """An error that the client is told of as it is."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: list[dict[str, Any]] | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ):
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors or []
        self.headers = headers

    def body(self, *, error: bool = False) -> bytes:
        """The problem document; with `error`, as clients of the v2 protocol read it too."""
        document = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,  # as `about:blank` asks
            "status": self.status,
            "detail": self.detail,
        }
        more = {"errors": self.errors} if self.errors else {}
        return orjson.dumps({**document, **more, **({"error": self.detail} if error else {})})


def invalid(error: ValidationError, prefix: str = "") -> Problem:
    """What pydantic found wrong, each with a JSON pointer to where (RFC 6901)."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    errors = [{"pointer": prefix + pointer(e["loc"]), "detail": e["msg"]} for e in found[:SHOWN]]
    first = errors[0]
    detail = f"{first['pointer'] or 'the whole request'}: {first['detail']}"
    return Problem(422, f"{detail} ({len(found)} in all; see openapi.json)", errors)


def pointer(location: tuple[str | int, ...]) -> str:
    """A place in a JSON document; the two characters that pointers use are escaped."""
    parts = (str(part)[:LONGEST_PART] for part in location)
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
