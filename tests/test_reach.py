"""Servers that are named are asked before any work, and told by name when they do not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.platform.reach import must_answer
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings


class Server(ThreadingHTTPServer):
    """Answers every request with one status, and writes down what was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_nobody_is_asked_where_nobody_is_named(tmp_path: Path) -> None:
    must_answer(Settings(home=tmp_path))
    must_answer(Settings(home=tmp_path, mlflow_tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))


def test_servers_are_asked_where_they_tell_their_health(tmp_path: Path, server: Server) -> None:
    must_answer(
        Settings(
            home=tmp_path,
            mlflow_tracking_uri=f"{server.url}/",
            prefect_api_url=f"{server.url}/api",
        )
    )
    assert server.asked == ["/health", "/api/health"]


@pytest.mark.parametrize(
    ("setting", "who", "variable"),
    [
        ("mlflow_tracking_uri", "MLflow", "MLFLOW_TRACKING_URI"),
        ("prefect_api_url", "Prefect", "PREFECT_API_URL"),
    ],
)
def test_a_server_that_is_down_or_ill_is_named_with_the_way_out(
    tmp_path: Path, server: Server, setting: str, who: str, variable: str
) -> None:
    server.status = 500
    with pytest.raises(PlatformError, match=rf"{who} at {server.url} answers 500.*{variable}"):
        must_answer(Settings(home=tmp_path, **{setting: server.url}))  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(PlatformError, match=rf"{who} at .*:{port} does not answer.*lyceum up"):
        must_answer(Settings(home=tmp_path, **{setting: f"http://127.0.0.1:{port}"}))  # type: ignore[arg-type]
