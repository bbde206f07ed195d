"""A service's surface in this process, and how a client asks it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import torch
import uvicorn

from ray_jobs import artifact
from ray_jobs.artifact import Artifact
from ray_jobs.families.knowledge.networks.lstm import Lstm
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.privacy import Key
from ray_jobs.serving.release import Release, golden_outcomes
from ray_jobs.serving.surface import Surface

ITEMS = tuple(f"item {i}" for i in range(40))
SKILLS = ("adding", "taking away")
KEY = Key(bytes(range(32)))
SERVICE = "algebra-practice"
Ask = Callable[..., httpx.Response]


def untrained(folder: Path, seed: int = 0) -> Artifact:
    """A network whose answers are arbitrary, but depend on all that it hears."""
    torch.manual_seed(seed)
    spec, vocabulary = Lstm(width=16, neighbours=0), Vocabulary(ITEMS, SKILLS)
    module = spec.build(vocabulary)
    artifact.write(
        folder, kind="knowledge", spec=spec, vocabulary=vocabulary, module=module, about={}
    )
    return artifact.read(folder)


def released(model: Artifact, uri: str = "somewhere", version: str = "7") -> Release:
    requests = [request(n) for n in (0, 3, 50)]
    return Release(
        service=SERVICE,
        family="knowledge",
        lineage=f"{int(version):02x}" * 16,
        artifact=uri,
        digest=model.digest,
        golden=golden_outcomes(model, requests),
        card={"description": "Knowledge tracing", "metrics": {"auc": {"value": 0.8}}},
        version=version,
    )


def client(app: Surface, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),  # type: ignore[arg-type]
        base_url=f"http://school/{SERVICE}/",
        headers=headers,
    )


@contextmanager
def asking(app: Surface, **headers: str) -> Iterator[Ask]:
    """Ask the surface as a client would; objects are sent as JSON."""
    with asyncio.Runner() as runner:

        def one(method: str, path: str, body: Any = None, **more: str) -> httpx.Response:
            content = body if isinstance(body, bytes | None) else orjson.dumps(body)

            async def asked() -> httpx.Response:
                async with client(app, **headers) as http:
                    return await http.request(method, path, content=content, headers=more)

            return runner.run(asked())

        yield one


def answer(i: int) -> dict[str, Any]:
    return {"item": ITEMS[i % 40], "skills": [SKILLS[i % 2]], "correct": i % 3 % 2}


def past(n: int) -> list[dict[str, Any]]:
    return [answer(i) for i in range(n)]


def question(i: int) -> dict[str, Any]:
    return {"item": ITEMS[i % 40], "skills": [SKILLS[i % 2]]}


def request(n: int = 3, candidates: int = 1) -> dict[str, Any]:
    return {"history": past(n), "candidates": [question(i) for i in range(candidates)]}


@contextmanager
def listening(app: Surface) -> Iterator[str]:
    """The URL of a service that answers over a socket, until the block ends."""
    with socket.socket() as heard:
        heard.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([heard],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{heard.getsockname()[1]}/{SERVICE}"
        finally:
            server.should_exit = True
            thread.join(10)
