"""The HTTP surface of one service: a plain ASGI application, the same for every family.

Plain because each layer costs: on two cores a framework's routing and
response classes halve the requests per second of a small model.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from ray_jobs.artifact import Artifact
from ray_jobs.privacy import Key
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.openapi import document, page
from ray_jobs.serving.problem import CONTENT_TYPE, Problem, invalid
from ray_jobs.serving.release import Release
from ray_jobs.verb import Verb

log = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 16 * 2**20  # bytes
MAX_INSTANCES = 10_000
JSON = b"application/json"


class Surface:
    """Routes of a release: POST v1/<verb>, GET v1/model, healthz, readyz, openapi.json, docs."""

    def __init__(self, model: Artifact, release: Release, key: Key, prefix: str = ""):
        self.release = release
        self.model = model
        self.key = key
        self.prefix = f"/{prefix or release.service}"  # Serve leaves it in the path
        self.batcher = Batcher(model)
        self.verbs: Mapping[str, Verb] = model.family.api.VERBS
        openapi = document(release, self.verbs)
        self.pages: dict[str, tuple[bytes, bytes]] = {
            "v1/model": (JSON, orjson.dumps(self.card())),
            "healthz": (JSON, orjson.dumps({"status": "alive", **self.stamp()})),
            "openapi.json": (JSON, orjson.dumps(openapi)),
            "docs": (b"text/html; charset=utf-8", page(openapi).encode()),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI conversation."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        try:
            kind, body = await self.answer(scope, receive)
            await _reply(send, 200, kind, body)
        except Problem as problem:
            await _reply(send, problem.status, CONTENT_TYPE, problem.body())
        except Exception:
            log.exception("request failed")
            problem = Problem(500, "this is our fault; the replica's log says more")
            await _reply(send, 500, CONTENT_TYPE, problem.body())

    async def answer(self, scope: Message, receive: Receive) -> tuple[bytes, bytes]:
        """Content type and body of the answer; raises Problem."""
        path = scope["path"].removeprefix(self.prefix).strip("/")
        verb = self.verbs.get(path.removeprefix("v1/")) if path.startswith("v1/") else None
        allowed = "POST" if verb else "GET"
        if verb is None and path not in self.pages and path != "readyz":
            routes = [*(f"v1/{name}" for name in self.verbs), *self.pages, "readyz"]
            raise Problem(404, f"no {path!r} here; there are {', '.join(routes)}")
        if scope["method"] != allowed:
            raise Problem(405, f"{path} answers {allowed}, not {scope['method']}")
        if verb:
            return JSON, await self.call(verb, await _body(receive))
        if path == "readyz":
            return JSON, await self.ready()
        return self.pages[path]

    async def call(self, verb: Verb, data: bytes) -> bytes:
        """Answer one request, or each of `{"instances": [...]}` under `answers`."""
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Problem(400, f"the body is not JSON: {error}") from error
        if not (isinstance(values, dict) and set(values) == {"instances"}):
            return orjson.dumps(await self.one(verb, [(values, "")], lambda answers: answers[0]))
        instances = values["instances"]
        if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
            raise Problem(422, f"/instances: expected a list of 1 to {MAX_INSTANCES} requests")
        numbered = [(value, f"/instances/{i}") for i, value in enumerate(instances)]
        return orjson.dumps(await self.one(verb, numbered, lambda answers: {"answers": answers}))

    async def one(
        self,
        verb: Verb,
        values: list[tuple[Any, str]],
        shape: Callable[[list[dict[str, Any]]], dict[str, Any]],
    ) -> dict[str, Any]:
        """Validate every request, predict them together, and answer each."""
        requests = [_validated(verb, value, prefix) for value, prefix in values]
        examples = [verb.examples(request, self.model.vocabulary) for request in requests]
        outcomes = await self.batcher.outcomes([e for part in examples for e in part])
        answers, start = [], 0
        for request, part in zip(requests, examples, strict=True):
            mine = outcomes[start : start + len(part)]
            start += len(part)
            answer = verb.answer(request, mine, self.model.vocabulary)
            answers.append({**answer, "prediction_id": self.prediction_id(request, mine)})
        return {**shape(answers), **self.stamp()}

    async def ready(self) -> bytes:
        """Answer a golden request now; raises Problem when the answer is not the known one."""
        verb = self.verbs["predict"]
        case = self.release.golden[0]
        request = verb.request.model_validate(case["request"])
        outcomes = await self.batcher.outcomes(verb.examples(request, self.model.vocabulary))
        off = max(abs(float(a[0]) - b[0]) for a, b in zip(outcomes, case["outcomes"], strict=True))
        if not off <= 1e-3:
            raise Problem(503, f"a golden request is answered {off:.4f} away from its known answer")
        return orjson.dumps({"status": "ready", **self.stamp()})

    def prediction_id(self, request: Any, outcomes: list[Any]) -> str:
        """Version, time, pseudonym and predictions, signed, so that feedback needs no look-up."""
        learner = getattr(request, "learner", None)
        payload = orjson.dumps(
            {
                "v": self.release.version,
                "t": int(time.time()),
                "l": self.key.pseudonym(learner) if learner else None,
                "p": [round(float(o[0]), 4) for o in outcomes[:16]],
            }
        )
        text = base64.urlsafe_b64encode(payload).decode().rstrip("=")
        return f"{text}.{self.key.signature(payload)}"

    def stamp(self) -> dict[str, str]:
        """What stands in every answer: which model it came from."""
        return {"version": self.release.version, "lineage": self.release.lineage}

    def card(self) -> dict[str, Any]:
        """What v1/model tells."""
        schema = {name: verb.request.model_json_schema() for name, verb in self.verbs.items()}
        return {
            "service": self.release.service,
            "family": self.release.family,
            **self.stamp(),
            "digest": self.release.digest,
            **self.release.card,
            "schema": schema,
        }


def _validated(verb: Verb, value: Any, prefix: str) -> Any:
    try:
        return verb.request.model_validate(value)
    except ValidationError as error:
        raise invalid(error, prefix) from error


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise Problem(413, f"the body is over {MAX_BODY} bytes; send fewer instances")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _reply(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
