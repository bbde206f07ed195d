"""From the bytes of a request to those of its answer: opened, checked, predicted, signed.

The same for every verb of every family; it knows nothing of routes or of who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, ValidationError

from ray_jobs.artifact import Artifact
from ray_jobs.privacy import Key
from ray_jobs.serving import receipt, sealed
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.problem import Problem, invalid
from ray_jobs.serving.receipt import Receipt
from ray_jobs.serving.release import Release
from ray_jobs.verb import Verb

MAX_INSTANCES = 10_000
MAX_COST = 2**20  # positions of one request; about ten seconds of the model


class Answering:
    """A release's answers."""

    def __init__(self, model: Artifact, release: Release, key: Key, batcher: Batcher):
        self.model = model
        self.release = release
        self.key = key
        self.batcher = batcher
        # What stands in every answer: which model it came from.
        self.stamp = {"version": release.version, "lineage": release.lineage}
        self.origin = {  # of states
            "service": release.service,
            "version": release.version,
            "digest": release.digest[:16],
        }

    async def call(
        self, verb: Verb, data: bytes, *, explain: bool = False
    ) -> tuple[bytes, list[bytes]]:
        """The answer to one request, or to each of `{"instances": [...]}`, and its receipts.

        Raises Problem.
        """
        told = instances(data, verb.read)
        alone = "" in told
        requests = self.requests(verb, told, explain=explain)
        answers, notes = await self.answers(verb, requests, explain=explain)
        whole = answers[0] if alone else {"answers": answers}
        return orjson.dumps({**whole, **self.stamp}), notes

    def requests(self, verb: Verb, told: Mapping[str, Any], *, explain: bool) -> list[Any]:
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
    ) -> tuple[list[dict[str, Any]], list[bytes]]:
        """Predict all requests together, and answer each, with its reasons where asked for."""
        told = await self.outcomes(verb.examples, requests)
        answers: list[dict[str, Any]] = []
        notes: list[bytes] = []
        for request, mine in zip(requests, told, strict=True):
            answer = verb.answer(request, mine, self.model.vocabulary)
            if verb.keeps:
                answer["state"] = sealed.sealed(self.key, answer["state"], **self.origin)
            else:
                note = self.note(verb, request, mine).encoded()
                answer["prediction_id"] = receipt.signed(self.key, note)
                notes.append(note)
            answers.append(answer)
        if explain and verb.explanation:
            variants = await self.outcomes(verb.explanation.examples, requests)
            for answer, request, mine in zip(answers, requests, variants, strict=True):
                reasons = verb.explanation.reasons(request, mine, self.model.vocabulary)
                answer["reasons"] = reasons
        return answers, notes

    def validated(self, verb: Verb, value: Any, prefix: str) -> Any:
        """A request whose state, where it brings one, is opened; raises Problem."""
        if verb.remembers and isinstance(value, dict) and isinstance(value.get("state"), str):
            pointer = f"{prefix}/state"
            data = sealed.opened(self.key, value["state"], **self.origin, pointer=pointer)
            value = {**value, "state": data}
        return valid(verb.request, value, prefix)

    async def outcomes(
        self, examples: Callable[[Any, Any], list[Any]], requests: list[Any]
    ) -> list[list[Any]]:
        """The outcomes of each request's examples, all predicted together."""
        parts = [examples(request, self.model.vocabulary) for request in requests]
        outcomes = iter(await self.batcher.outcomes([e for part in parts for e in part]))
        return [[next(outcomes) for _ in part] for part in parts]

    def note(self, verb: Verb, request: Any, outcomes: list[Any]) -> Receipt:
        """What was predicted, which feedback brings back."""
        logged = verb.logged
        return receipt.made(
            self.key,
            service=self.release.service,
            version=self.release.version,
            learner=getattr(request, "learner", None),
            predictions=(one for outcome in outcomes for one in outcome.astype(float).tolist()),
            rows=logged.rows(request) if logged else (),
            target=logged.target if logged else None,
        )


def instances(data: bytes, read: Callable[[bytes], Any] | None = None) -> dict[str, Any]:
    """What a body asks, by where it stands in it: one thing, or many; raises Problem."""
    values = read(data) if read else None
    if values is None:
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Problem(400, f"the body is not JSON: {error}") from error
    if not (isinstance(values, dict) and set(values) == {"instances"}):
        return {"": values}
    given = values["instances"]
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_INSTANCES:
        detail = f"expected a list of 1 to {MAX_INSTANCES} requests"
        problem = {"pointer": "/instances", "detail": detail}
        raise Problem(422, f"/instances: {detail}", [problem])
    return {f"/instances/{number}": value for number, value in enumerate(given)}


def valid(model: type[BaseModel], value: Any, prefix: str) -> Any:
    """A request as its model has it; raises Problem that says where it is not."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(error, prefix) from error


def explained(query: bytes, verb: Verb, path: str) -> bool:
    """Whether reasons are asked for; raises Problem for another query, or where none are known."""
    asked = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    wanted = asked.pop("explain", "false").lower()
    if asked or wanted not in {"true", "false"}:
        given = f"{next(iter(asked))!r}" if asked else f"explain={wanted}"
        raise Problem(422, f"query {given}: there is explain=true and explain=false, no other")
    if wanted == "true" and verb.explanation is None:
        raise Problem(422, f"{path} knows no reasons; ask without explain=true")
    return wanted == "true"
