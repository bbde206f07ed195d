"""The HTTP surface of one service: a plain ASGI application, the same for every family.

Plain because each layer costs: on two cores a framework's routing and
response classes halve the requests per second of a small model.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from ray_jobs.artifact import Artifact
from ray_jobs.privacy import Key
from ray_jobs.serving.answering import Answering, explained, instances, valid
from ray_jobs.serving.asgi import (
    JSON,
    Answer,
    Call,
    Headers,
    Message,
    Receive,
    Send,
    body,
    lifespan,
    only_json,
    reply,
)
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.deadlines import Deadlines
from ray_jobs.serving.door import Door
from ray_jobs.serving.feedback import FeedbackRequest, Outcomes, Recorder
from ray_jobs.serving.inference import Inference
from ray_jobs.serving.journal import Entry, Journal
from ray_jobs.serving.keys import OPERATOR
from ray_jobs.serving.meters import Meters
from ray_jobs.serving.openapi import document, page
from ray_jobs.serving.problem import CONTENT_TYPE, Problem
from ray_jobs.serving.release import TOLERANCE, Release, deviation
from ray_jobs.serving.routes import Route
from ray_jobs.serving.routes import page as static
from ray_jobs.verb import Verb

log = logging.getLogger(__name__)

PROVED_S = 1.0  # for which a golden answer holds
MAX_BODY = 16 * 2**20  # bytes
HTML = b"text/html; charset=utf-8"


@dataclass(frozen=True)
class House:
    """What stands round the model of a service; each part may be left out."""

    door: Door | None = None
    journal: Journal | None = None
    recorder: Recorder | None = None
    meters: Meters | None = None


class Surface:
    """Routes of a release: POST v1/<verb>, v1/feedback, GET v1/model, healthz, readyz, and more."""

    def __init__(
        self,
        model: Artifact,
        release: Release,
        key: Key,
        prefix: str = "",
        *,
        house: House = House(),
    ):
        self.release = release
        self.model = model
        self.key = key
        self.house = house
        self.prefix = f"/{prefix or release.service}"  # Serve leaves it in the path
        self.batcher = Batcher(model, meters=house.meters)
        self.answering = Answering(model, release, key, self.batcher)
        self.verbs = dict(model.family.api.verbs(model.vocabulary))
        self.outcomes = self._outcomes()
        self.deadlines = Deadlines()
        self.ready = orjson.dumps({"status": "ready", **self.answering.stamp})
        self.proved_s = -math.inf  # when a golden request was last answered rightly
        self.routes = self._routes()
        self.stamps: Headers = (
            (b"x-lyceum-version", release.version.encode()),
            (b"x-lyceum-lineage", release.lineage.encode()),
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI conversation."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        begin = time.perf_counter()
        deadline = self.deadlines.begin()
        call = Call.of(scope, self.prefix, deadline)
        route = self.routes.get(call.path)
        status, headers = 200, self.stamps
        try:
            answer = await self._answer(route, call, receive)
        except Problem as problem:
            status, headers, answer = self._refused(call, problem)
        except asyncio.CancelledError:
            if not deadline.passed:
                raise  # somebody else's wish, such as of a client that left
            deadline.task.uncancel()
            status, headers, answer = self._refused(call, deadline.problem())
        except Exception:
            log.exception("request failed")
            known = f"request {call.id}" if call.id else "it"
            fault = Problem(500, f"this is our fault; the replica's log says more of {known}")
            status, headers, answer = self._refused(call, fault)
        finally:
            self.deadlines.end(deadline)
        await reply(send, status, answer, headers)
        if self.house.meters:
            name = route.name if route else "none"
            self.house.meters.answered(name, status, time.perf_counter() - begin)

    async def _answer(self, route: Route | None, call: Call, receive: Receive) -> Answer:
        """The answer to a call; raises Problem."""
        if route is None:
            known = ", ".join(self.routes)
            raise Problem(404, f"no {call.path!r} here; below {self.prefix} there are {known}")
        if call.method != route.method and (call.method, route.method) != ("HEAD", "GET"):
            allow = "GET, HEAD" if route.method == "GET" else route.method
            detail = f"{call.path} answers {allow}, not {call.method}"
            raise Problem(405, detail, headers=((b"allow", allow.encode()),))
        caller = ""
        if route.action and self.house.door:
            caller = await self.house.door.admit(call, route.action)
        return await route.handler(call, receive, caller)

    def _refused(self, call: Call, problem: Problem) -> tuple[int, Headers, Answer]:
        """Status, headers and document of a problem."""
        headers = (*problem.headers, *self.stamps)
        # Clients of the v2 protocol read an error elsewhere.
        document = problem.body(error=call.path.startswith("v2"))
        return problem.status, headers, (CONTENT_TYPE, document)

    def _outcomes(self) -> Outcomes | None:
        """What feedback may tell, where a family says how it stands in a log."""
        logged = self.verbs["predict"].logged
        if logged is None:
            return None
        return Outcomes(self.key, self.release.service, self.release.version, logged)

    def _routes(self) -> dict[str, Route]:
        inference = Inference(self.model, self.release, self.batcher, MAX_BODY)
        openapi = document(self.release, self.verbs, self.prefix, inference.metadata())
        alive = {"status": "alive", **self.answering.stamp}
        routes = {
            **{
                f"v1/{name}": Route(name, "POST", "predict", partial(self._verb, verb))
                for name, verb in self.verbs.items()
            },
            "v1/feedback": Route("feedback", "POST", "feedback", self._feedback),
            "v1/model": Route("model", "GET", "read", static(JSON, orjson.dumps(self.card()))),
            "healthz": Route("healthz", "GET", "", static(JSON, orjson.dumps(alive))),
            "readyz": Route("readyz", "GET", "", self._ready),
            "openapi.json": Route("openapi", "GET", "", static(JSON, orjson.dumps(openapi))),
            "docs": Route("docs", "GET", "", static(HTML, page(openapi).encode())),
            **inference.routes(self._ready),
        }
        if self.house.recorder is None or self.outcomes is None:
            del routes["v1/feedback"]
        return routes

    async def _verb(self, verb: Verb, call: Call, receive: Receive, caller: str) -> Answer:
        explain = explained(call.query, verb, call.path)
        only_json(call)
        data = await body(call, receive, MAX_BODY)
        answer, notes = await self.answering.call(verb, data, explain=explain)
        if self.house.journal and caller != OPERATOR:
            for note in notes:
                self.house.journal.add(Entry(note, call.id, caller))
        return JSON, answer

    async def _feedback(self, call: Call, receive: Receive, caller: str) -> Answer:
        assert self.house.recorder
        assert self.outcomes
        only_json(call)
        kept: list[dict[str, Any]] = []
        for pointer, value in instances(await body(call, receive, MAX_BODY)).items():
            told = valid(FeedbackRequest, value, pointer)
            kept += self.outcomes.rows(told, by=caller, pointer=pointer)
        await self.house.recorder.record(kept)
        return JSON, orjson.dumps({"recorded": len(kept), **self.answering.stamp})

    async def _ready(self, _call: Call, _receive: Receive, _caller: str) -> Answer:
        """Answer a golden request, once a moment since anybody may ask; raises Problem if wrong."""
        if time.monotonic() < self.proved_s + PROVED_S:
            return JSON, self.ready
        verb, case = self.verbs["predict"], self.release.golden[0]
        request = verb.request.model_validate(case["request"])
        outcomes = await self.batcher.outcomes(verb.examples(request, self.model.vocabulary))
        off = deviation(outcomes, case["outcomes"])
        if not off <= TOLERANCE:
            raise Problem(503, f"a golden request is answered {off:.4f} away from its known answer")
        self.proved_s = time.monotonic()
        return JSON, self.ready

    def card(self) -> dict[str, Any]:
        """What v1/model tells."""
        return {
            "service": self.release.service,
            "family": self.release.family,
            **self.answering.stamp,
            "digest": self.release.digest,
            **self.release.card,
            "schema": {name: verb.request.model_json_schema() for name, verb in self.verbs.items()},
        }
