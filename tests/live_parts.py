"""A small stand-in for a Ray with Serve: what is live on it answers over HTTP."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows import holding, publishing, services
from flows.platform.processes import MARK
from ray_jobs.cluster import Cluster
from ray_jobs.errors import ServiceError
from ray_jobs.recipe import Resources
from ray_jobs.serving import deploy
from ray_jobs.serving.release import Release
from ray_jobs.serving.site import Site
from ray_jobs.settings import Settings


class Serve:
    """Services with the release that answers for each; what is `broken` never does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.live: dict[str, Release] = {}
        self.resources: dict[str, Resources] = {}
        self.broken: set[tuple[str, str]] = set()  # (service, version)
        self.guests = 0  # who has joined and not left
        self.joined_ever = 0
        self.on_publish: Callable[[], None] = lambda: None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def versions(self) -> dict[str, str]:
        return {name: release.version for name, release in self.live.items()}

    @contextmanager
    def joined(self, settings: Settings, *, folder: str = "", port: int = 0) -> Iterator[Cluster]:
        lasting = bool(settings.ray_address)
        # A Ray of the run's own has a folder and a port, and its processes bear the run's mark.
        assert lasting or (Path(folder).is_dir() and port and os.environ[MARK])
        self.guests += 1
        self.joined_ever += 1
        try:
            yield Cluster("", self.url, lasting)
        finally:
            self.guests -= 1

    def publish(
        self,
        release: Release,
        base_url: str,
        *,
        site: Site,
        resources: Resources,
        previous: Release | None = None,
    ) -> str:
        """As `deploy.publish`: where a release cannot live, Serve wants the previous or nothing."""
        assert self.guests
        assert site.key_file
        assert site.store
        self.on_publish()
        service = release.service
        if (service, release.version) in self.broken:
            self.live.pop(service, None)
            if previous is not None:
                self.live[service] = previous
            raise ServiceError(f"service {service} could not start: no weights")
        self.live[service], self.resources[service] = release, resources
        return f"{base_url}/{service}"

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        release = self.live.get(path.split("/")[1])
        if release is None:
            return 404, {}
        return 200, {"version": release.version, "lineage": release.lineage}


@contextmanager
def serving(patch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A Serve that every flow joins and publishes on, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = serve.answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(orjson.dumps(body))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serve = Serve(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        for module in (services, publishing, holding):
            patch.setattr(module, "joined", serve.joined)
        patch.setattr(deploy, "publish", serve.publish)
        yield serve
        server.shutdown()
