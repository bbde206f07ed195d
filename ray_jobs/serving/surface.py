"""The HTTP surface of one service: a plain ASGI application, the same for every family.

Plain because each layer costs: on two cores a framework's routing and
response classes halve the requests per second of a small model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import orjson
from pydantic import ValidationError

from ray_jobs.artifact import Artifact
from ray_jobs.privacy import Key
from ray_jobs.serving import receipt, sealed
from ray_jobs.serving.asgi import JSON, Answer, Message, Receive, Send, body, lifespan, reply
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.openapi import document, page
from ray_jobs.serving.problem import CONTENT_TYPE, Problem, invalid
from ray_jobs.serving.release import TOLERANCE, Release, deviation
from ray_jobs.verb import Verb

log = logging.getLogger(__name__)

MAX_BODY = 16 * 2**20  # bytes
MAX_INSTANCES = 10_000
MAX_COST = 2**20  # positions of one request; about ten seconds of the model


class Surface:
    """Routes of a release: POST v1/<verb>, GET v1/model, healthz, readyz, openapi.json, docs."""

    def __init__(self, model: Artifact, release: Release, key: Key, prefix: str = ""):
        self.release = release
        self.model = model
        self.key = key
        self.prefix = f"/{prefix or release.service}"  # Serve leaves it in the path
        self.batcher = Batcher(model)
        # What stands in every answer: which model it came from.
        self.stamp = {"version": release.version, "lineage": release.lineage}
        self.origin = {  # of states
            "service": release.service,
            "version": release.version,
            "digest": release.digest[:16],
        }
        verbs = model.family.api.verbs(model.vocabulary)
        self.verbs = {f"v1/{name}": verb for name, verb in verbs.items()}
        openapi = document(release, verbs, self.prefix)
        self.pages: dict[str, Answer] = {
            "v1/model": (JSON, orjson.dumps(self.card())),
            "healthz": (JSON, orjson.dumps({"status": "alive", **self.stamp})),
            "openapi.json": (JSON, orjson.dumps(openapi)),
            "docs": (b"text/html; charset=utf-8", page(openapi).encode()),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI conversation."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        try:
            kind, data = await self.answer(scope, receive)
            await reply(send, 200, kind, data)
        except Problem as problem:
            await reply(send, problem.status, CONTENT_TYPE, problem.body(), problem.headers)
        except Exception:
            log.exception("request failed")
            fault = Problem(500, "this is our fault; the replica's log says more")
            await reply(send, fault.status, CONTENT_TYPE, fault.body())

    async def answer(self, scope: Message, receive: Receive) -> Answer:
        """Content type and body of the answer; raises Problem."""
        path, method = scope["path"].removeprefix(self.prefix).strip("/"), scope["method"]
        verb = self.verbs.get(path)
        if verb is None and path not in self.pages and path != "readyz":
            routes = ", ".join([*self.verbs, *self.pages, "readyz"])
            raise Problem(404, f"no {path!r} here; below {self.prefix} there are {routes}")
        allowed = ("POST",) if verb else ("GET", "HEAD")
        if method not in allowed:
            allow = ", ".join(allowed)
            detail = f"{path} answers {allow}, not {method}"
            raise Problem(405, detail, headers=((b"allow", allow.encode()),))
        if verb:
            explain = _explain(scope.get("query_string", b""), verb, path)
            return JSON, await self.call(verb, await body(receive, MAX_BODY), explain=explain)
        return (JSON, await self.ready()) if path == "readyz" else self.pages[path]

    async def call(self, verb: Verb, data: bytes, *, explain: bool = False) -> bytes:
        """Answer one request, or each of `{"instances": [...]}` under `answers`."""
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Problem(400, f"the body is not JSON: {error}") from error
        if not (isinstance(values, dict) and set(values) == {"instances"}):
            (answer,) = await self.answers(
                verb, self.requests(verb, {"": values}, explain=explain), explain=explain
            )
            return orjson.dumps({**answer, **self.stamp})
        instances = values["instances"]
        if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
            detail = f"expected a list of 1 to {MAX_INSTANCES} requests"
            problem = {"pointer": "/instances", "detail": detail}
            raise Problem(422, f"/instances: {detail}", [problem])
        told = {f"/instances/{number}": value for number, value in enumerate(instances)}
        requests = self.requests(verb, told, explain=explain)
        answers = await self.answers(verb, requests, explain=explain)
        return orjson.dumps({"answers": answers, **self.stamp})

    def requests(self, verb: Verb, told: dict[str, Any], *, explain: bool) -> list[Any]:
        """What is asked, by where it stands in the body; raises Problem where it costs too much."""
        requests: list[Any] = []
        cost = 0
        for prefix, value in told.items():
            request = self.validated(verb, value, prefix)
            requests.append(request)
            # Before the next one is opened: a state is larger than its token.
            cost += verb.cost(request)
            if explain and verb.explanation:
                cost += verb.explanation.cost(request)
            if cost > MAX_COST:
                raise Problem(
                    413,
                    f"{cost} rows would be read for the answers; at most {MAX_COST} in one "
                    "request: send it in parts",
                )
        return requests

    async def answers(
        self, verb: Verb, requests: list[Any], *, explain: bool
    ) -> list[dict[str, Any]]:
        """Predict all requests together, and answer each, with its reasons where asked for."""
        told = await self.outcomes(verb.examples, requests)
        pairs = zip(requests, told, strict=True)
        answers = [self.told(verb, request, mine) for request, mine in pairs]
        if explain and verb.explanation:
            variants = await self.outcomes(verb.explanation.examples, requests)
            for answer, request, mine in zip(answers, requests, variants, strict=True):
                reasons = verb.explanation.reasons(request, mine, self.model.vocabulary)
                answer["reasons"] = reasons
        return answers

    def told(self, verb: Verb, request: Any, outcomes: list[Any]) -> dict[str, Any]:
        """The answer to one request: with a prediction id, or a state that is sealed."""
        answer = verb.answer(request, outcomes, self.model.vocabulary)
        if not verb.keeps:
            return {**answer, "prediction_id": self.prediction_id(request, outcomes)}
        return {**answer, "state": sealed.sealed(self.key, answer["state"], **self.origin)}

    def validated(self, verb: Verb, value: Any, prefix: str) -> Any:
        """A request whose state, where it brings one, is opened; raises Problem."""
        if verb.remembers and isinstance(value, dict) and isinstance(value.get("state"), str):
            pointer = f"{prefix}/state"
            data = sealed.opened(self.key, value["state"], **self.origin, pointer=pointer)
            value = {**value, "state": data}
        try:
            return verb.request.model_validate(value)
        except ValidationError as error:
            raise invalid(error, prefix) from error

    async def outcomes(
        self, examples: Callable[[Any, Any], list[Any]], requests: list[Any]
    ) -> list[list[Any]]:
        """The outcomes of each request's examples, all predicted together."""
        parts = [examples(request, self.model.vocabulary) for request in requests]
        outcomes = iter(await self.batcher.outcomes([e for part in parts for e in part]))
        return [[next(outcomes) for _ in part] for part in parts]

    def prediction_id(self, request: Any, outcomes: list[Any]) -> str:
        """A signed note of what was predicted, which feedback brings back."""
        return receipt.signed(
            self.key,
            version=self.release.version,
            learner=getattr(request, "learner", None),
            predictions=[float(p) for o in outcomes[: receipt.KEPT] for p in np.ravel(o)],
        )

    async def ready(self) -> bytes:
        """Answer a golden request now; raises Problem when the answer is not the known one."""
        verb, case = self.verbs["v1/predict"], self.release.golden[0]
        request = verb.request.model_validate(case["request"])
        outcomes = await self.batcher.outcomes(verb.examples(request, self.model.vocabulary))
        off = deviation(outcomes, case["outcomes"])
        if not off <= TOLERANCE:
            raise Problem(503, f"a golden request is answered {off:.4f} away from its known answer")
        return orjson.dumps({"status": "ready", **self.stamp})

    def card(self) -> dict[str, Any]:
        """What v1/model tells."""
        return {
            "service": self.release.service,
            "family": self.release.family,
            **self.stamp,
            "digest": self.release.digest,
            **self.release.card,
            "schema": {
                path.removeprefix("v1/"): verb.request.model_json_schema()
                for path, verb in self.verbs.items()
            },
        }


def _explain(query: bytes, verb: Verb, path: str) -> bool:
    """Whether reasons are asked for; raises Problem for another query, or where none are known."""
    asked = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    wanted = asked.pop("explain", "false").lower()
    if asked or wanted not in {"true", "false"}:
        given = f"{next(iter(asked))!r}" if asked else f"explain={wanted}"
        raise Problem(422, f"query {given}: there is explain=true and explain=false, no other")
    if wanted == "true" and verb.explanation is None:
        raise Problem(422, f"{path} knows no reasons; ask without explain=true")
    return wanted == "true"
