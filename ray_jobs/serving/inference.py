"""The Open Inference Protocol v2 over HTTP, so that clients of KServe and of Triton work.

A model's inputs are the columns of the frame that an analyst holds, one tensor each;
its outputs are the columns of predictions. Rows without an outcome are what is asked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ray_jobs import __version__
from ray_jobs.artifact import Artifact
from ray_jobs.errors import ContractError
from ray_jobs.frames import Table
from ray_jobs.serving import tensors
from ray_jobs.serving.answering import MAX_COST
from ray_jobs.serving.asgi import JSON, Answer, Call, Receive, body
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.problem import Problem
from ray_jobs.serving.release import Release
from ray_jobs.serving.routes import Handler, Route, page

MOST_ROWS = 2048  # of a request: each may be asked after all the others
KINDS = {"text": tensors.BYTES, "any": tensors.BYTES, "number": "FP64"}
OCTETS = b"application/octet-stream"


class Inference:
    """A release as a model of the protocol."""

    def __init__(self, model: Artifact, release: Release, batcher: Batcher, max_body: int):
        self.model = model
        self.release = release
        self.batcher = batcher
        self.max_body = max_body
        api = model.family.api
        self.columns = {one.name: one for one in api.columns(model.vocabulary)}
        self.outputs = list(api.outputs(model.vocabulary))

    def routes(self, ready: Handler) -> Mapping[str, Route]:
        """Its paths; `ready` answers whether the model does."""
        about = {"name": "lyceum", "version": __version__, "extensions": ["binary_tensor_data"]}
        server = self._whether(ready, {"ready": True})
        found = {
            "v2": Route("v2", "GET", "read", page(JSON, orjson.dumps(about))),
            "v2/health/live": Route("live", "GET", "", page(JSON, b'{"live":true}')),
            "v2/health/ready": Route("ready", "GET", "", server),
        }
        name = self.release.service
        model, proved = f"v2/models/{name}", self._whether(ready, {"name": name, "ready": True})
        for path in (model, f"{model}/versions/{self.release.version}"):
            found |= {
                path: Route("metadata", "GET", "read", page(JSON, orjson.dumps(self.metadata()))),
                f"{path}/ready": Route("ready", "GET", "", proved),
                f"{path}/infer": Route("infer", "POST", "predict", self._infer),
            }
        return found

    def _whether(self, ready: Handler, told: dict[str, Any]) -> Handler:
        """That the model answers rightly, in the protocol's words; `ready` raises where not."""
        data = orjson.dumps(told)

        async def answered(call: Call, receive: Receive, caller: str) -> Answer:
            await ready(call, receive, caller)
            return JSON, data

        return answered

    def metadata(self) -> dict[str, Any]:
        """What the model takes and gives."""
        inputs = [{"name": c.name, "datatype": KINDS[c.kind]} for c in self.columns.values()]
        outputs = [{"name": name, "datatype": "FP64"} for name in self.outputs]
        return {
            "name": self.release.service,
            "versions": [self.release.version],
            "platform": "lyceum",
            "inputs": [{**one, "shape": [-1]} for one in inputs],
            "outputs": [{**one, "shape": [-1]} for one in outputs],
        }

    async def _infer(self, call: Call, receive: Receive, _caller: str) -> Answer:
        data = await body(call, receive, self.max_body)
        asked = tensors.split(data, call.headers.get(b"inference-header-content-length"))
        given = tensors.columns(asked, MOST_ROWS)
        chosen, binary = tensors.wants_binary(asked.document, self.outputs)
        predictions = await self.predicted(given)
        document = {
            "model_name": self.release.service,
            "model_version": self.release.version,
            "parameters": {"lineage": self.release.lineage},
        }
        if isinstance(asked.document.get("id"), str):
            document["id"] = asked.document["id"]
        told = {name: predictions[:, self.outputs.index(name)] for name in chosen}
        answer, head = tensors.written(document, told, binary)
        if not head:
            return JSON, answer
        return OCTETS, answer, ((b"inference-header-content-length", str(head).encode()),)

    async def predicted(self, given: Mapping[str, list[Any]]) -> NDArray[np.float64]:
        """(N, outputs) predictions of the rows; raises Problem for rows that are none."""
        for number, name in enumerate(given):
            if name not in self.columns:
                known = ", ".join(self.columns)
                raise tensors.refused(f"/inputs/{number}/name", f"expected one of {known}")
        table = Table({name: self._plain(name, values) for name, values in given.items()})
        try:
            examples, order = await asyncio.to_thread(
                self.model.family.api.frame, table, self.model.vocabulary
            )
        except ContractError as error:
            raise tensors.refused("/inputs", str(error)) from error
        cost = sum(map(self.model.family.cost, examples))
        if cost > MAX_COST:
            raise Problem(413, f"{cost} rows would be read; at most {MAX_COST}: send it in parts")
        outcomes = await self.batcher.outcomes(examples)
        found = np.zeros((len(table), len(self.outputs)))
        if len(order):
            found[order] = np.concatenate(outcomes).reshape(len(order), -1)
        return found

    def _plain(self, name: str, values: list[Any]) -> list[Any]:
        """A column with None for what is missing: NaN, or an empty text."""
        if self.columns[name].kind == "number":
            return [None if _is_missing(v) else v for v in values]
        return [None if _is_missing(v) else v if isinstance(v, str) else _name(v) for v in values]


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _name(number: float) -> str:
    """A number as the name that a log has for it: 7.0 is 7, and no digit is lost."""
    whole = isinstance(number, float) and number.is_integer()
    return str(int(number) if whole else number)
