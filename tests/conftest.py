"""What several test modules share: one object store for all of a session, and one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.s3_parts import Server, known, serving

if TYPE_CHECKING:
    from ray_jobs.artifact import Artifact
    from ray_jobs.serving.surface import Surface
    from ray_jobs.settings import Settings
    from tests.live_parts import Serve
    from tests.surface_parts import Ask


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test starts keeps anything where it happens to stand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LYCEUM_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An object store with its data on disk."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: Server) -> Iterator[Server]:
    """The same, named by the environment."""
    with known(**s3_server.environment):
        yield s3_server


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on many threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An untrained network, which nobody changes."""
    from tests.surface_parts import untrained

    return untrained(tmp_path_factory.mktemp("artifact"))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A stand-in for a Ray that lasts, with Serve on it."""
    from tests.live_parts import serving as standing_in

    with standing_in(monkeypatch) as stand_in:
        yield stand_in
        assert stand_in.guests == 0, "whoever joins a Ray leaves it again"


@pytest.fixture
def lasting(tmp_path: Path, serve: Serve) -> Settings:
    """An installation on that Ray."""
    from ray_jobs.settings import Settings

    return Settings(home=tmp_path / "home", ray_address="127.0.0.1:1", http_port=serve.port)


@pytest.fixture
def app(model: Artifact, tmp_path: Path) -> Surface:
    """A service that keeps what it predicts and what it is told, in the test's folder."""
    from tests.feedback_parts import keeping

    return keeping(model, tmp_path)


@pytest.fixture
def ask(app: Surface) -> Iterator[Ask]:
    """How a client asks it."""
    from tests.surface_parts import asking

    with asking(app, **{"x-request-id": "r-1"}) as one:
        yield one
