"""Whatever is wrong, one message says what, where and what to do, and nothing is half-written."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from flows.platform.processes import marked
from tests.installation import Installation

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(900)]

HEADER = "learner,item,correct\n"
GOOD = HEADER + "".join(
    # Some learners know more, and some items are harder.
    f"l{learner},i{item},{learner % 10 + (learner * 7 + item * 3) % 5 > 5 + item % 4:d}\n"
    for learner in range(120)
    for item in range(12)
)
CASES = "hours,label\n" + "".join(f"{i % 17},{i % 3 == 0:d}\n" for i in range(300))


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Installation]:
    """An installation whose log is good until a test spoils it."""
    log = tmp_path / "log.csv"
    log.write_text(GOOD)
    here = Installation.of(tmp_path, log)
    yield here
    here.lyceum("down")
    assert not marked(here.home, lambda _mark: True)


def refused(at: Installation, *words: str, status: int = 1, limit_s: float = 240) -> str:
    """The one message of a command that fails, after seeing that nothing is half-written."""
    run = at.start(*words)
    out, err = run.communicate(timeout=limit_s)
    assert run.returncode == status, out + err
    assert err.startswith("error: "), err
    assert err.count("error: ") == 1, err
    assert "Traceback" not in out + err
    assert "our fault" not in err
    whole(at)
    return " ".join(err.split())


def whole(at: Installation) -> None:
    """No temporary file, no run of MLflow left open, no version registered."""
    store = at.home / "store"
    assert not [path for path in store.rglob(".*") if path.is_file()]
    if (at.home / "mlflow.db").exists():
        client = MlflowClient(f"sqlite:///{at.home / 'mlflow.db'}")
        experiments = [e.experiment_id for e in client.search_experiments()]
        assert {r.info.status for r in client.search_runs(experiments)} <= {"FAILED", "FINISHED"}


def smoke(at: Installation, *words: str) -> list[str]:
    return ["run", "knowledge-smoke", "--data", str(at.data), *words]


DATA: dict[str, tuple[bytes, list[str]]] = {
    "an empty file": (b"", ["log.csv is empty", "expected a header"]),
    "a header alone": (HEADER.encode(), ["log.csv"]),
    "no column of answers": (GOOD.replace("correct", "colour", 1).encode(), ["columns.correct"]),
    "bytes that are no text": (bytes(range(256)) * 16, ["log.csv", "NUL bytes", "--set encoding="]),
    "no valid row": (
        (HEADER + "l1,i1,perhaps\nl2,i2,perhaps\n" * 50).encode(),
        ["no valid row among 100", "invalid_correct"],
    ),
    "one learner only": (
        (HEADER + "".join(f"ada,i{i},{i % 2}\n" for i in range(100))).encode(),
        ["split is empty", "1 groups"],
    ),
    "all answers equal": (
        GOOD.replace(",0\n", ",1\n").encode(),
        ["every one of the", "correct = 1", "nothing to learn"],
    ),
    "answers that are no numbers": (
        GOOD.replace(",0\n", ",nan\n").replace(",1\n", ",nan\n").encode(),
        ["no valid row"],
    ),
}


@pytest.mark.parametrize("what", DATA)
def test_a_log_that_nothing_can_be_learnt_from(at: Installation, what: str) -> None:
    content, words = DATA[what]
    at.data.write_bytes(content)
    message = refused(at, *smoke(at))
    for word in words:
        assert word in message


def test_a_compressed_log_that_is_cut_short(at: Installation, tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(GOOD.encode())[:-200])
    message = refused(at, "run", "knowledge-smoke", "--data", str(path))
    assert "log.csv.gz cannot be read" in message
    assert "deliver it again" in message


TABLES: dict[str, tuple[str, list[str]]] = {
    "labels that are missing": (
        CASES.replace(",0\n", ",nan\n").replace(",1\n", ",\n"),
        ["'label' is empty in every row"],
    ),
    "labels that are all equal": (CASES.replace(",0\n", ",1\n"), ["is '1' in every row"]),
    "no label": (CASES.replace("label", "colour", 1), ["columns.label=NAME", "hours, colour"]),
    "a column that tells the label": (
        "after,hours,label\n" + "".join(f"{i % 3:d},{i % 17},{i % 3 == 0:d}\n" for i in range(300)),
        ["these columns tell the label", "after", "columns.ignore=after"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TABLES)
def test_a_table_that_nothing_can_be_learnt_from(at: Installation, what: str) -> None:
    content, words = TABLES[what]
    at.data.write_text(content)
    message = refused(at, "run", "tabular-smoke", "--data", str(at.data))
    for word in words:
        assert word in message


WORDS: list[tuple[list[str], str]] = [
    (["run", "knowledge-smoke", "--data", "/nowhere/log.csv"], "/nowhere/log.csv"),
    (["run", "chess", "--data", "LOG"], "no recipe 'chess'; there are knowledge-smoke"),
    (["run", "knowledge", "--data", "LOG", "--set", "spec=chess"], "setting 'spec'"),
    (["run", "knowledge", "--data", "LOG", "--set", "spec.depth=1"], "no setting 'spec.depth'"),
    (["run", "knowledge", "--data", "LOG", "--set", "budget.epochs=few"], "expected int"),
    (
        ["run", "knowledge", "--data", "LOG", "--set", "budget.epochs=0"],
        "budget.epochs=0: expected at least 1",
    ),
    (["run", "knowledge", "--data", "LOG", "--workers", "0"], "workers=0: expected at least 1"),
    (["promote", "chess", "1"], "chess"),
    (["rollback", "chess"], "chess"),
]


@pytest.mark.parametrize(("words", "said"), WORDS)
def test_words_that_mean_nothing_here(at: Installation, words: list[str], said: str) -> None:
    asked = [str(at.data) if word == "LOG" else word for word in words]
    assert said in refused(at, *asked, status=2)


def test_a_port_that_is_taken(at: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        at.environment["LYCEUM_HTTP_PORT"] = str(port)
        message = refused(at, "up")
    assert f"port {port}" in message
    assert "LYCEUM_HTTP_PORT" in message


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that has nothing but one status for everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815 - the server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def nobody() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


SERVERS: list[tuple[str, str, Callable[[], object], str]] = [
    ("MLFLOW_TRACKING_URI", "", nobody, "does not answer"),
    ("MLFLOW_TRACKING_URI", "", lambda: answering(500), "answers 500"),
    ("PREFECT_API_URL", "/api", nobody, "does not answer"),
    ("PREFECT_API_URL", "/api", lambda: answering(500), "answers 500"),
]


@pytest.mark.parametrize(("name", "path", "server", "said"), SERVERS)
def test_a_server_that_is_down(
    at: Installation, name: str, path: str, server: Callable[[], object], said: str
) -> None:
    with server() as url:  # type: ignore[attr-defined]
        at.environment[name] = url + path
        message = refused(at, *smoke(at), limit_s=60)
        assert said in message
        assert f"{url}{path}" in message
        assert name in message
        assert not (at.home / "store").exists(), "asked before any work"
        del at.environment[name]


@contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A small file system of its own."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(at: Installation, tmp_path: Path) -> None:
    at.data.write_text(HEADER + GOOD.removeprefix(HEADER) * 40)
    with disk(tmp_path / "small", "64k") as place:
        at.environment["LYCEUM_STORE"] = str(place)
        message = refused(at, *smoke(at))
        assert "No space left on device" in message
        assert str(place) in message
        assert "LYCEUM_STORE" in message
        assert not [p for p in place.rglob(".*") if p.is_file()]
        del at.environment["LYCEUM_STORE"]
    at.data.write_text(GOOD)
    assert at.run(*smoke(at)[1:], "--set", "gate.max_calibration_error=1")["version"] == "1"


def test_a_home_that_cannot_be_written(at: Installation, tmp_path: Path) -> None:
    with disk(tmp_path / "sealed", "64k") as place:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        at.environment["LYCEUM_HOME"] = str(place / "home")
        message = refused(at, *smoke(at))
        assert f"the home {place / 'home'} cannot be written" in message
        assert "LYCEUM_HOME" in message
        at.environment["LYCEUM_HOME"] = str(at.home)


@pytest.mark.parametrize("up", [False, True])
def test_more_workers_than_there_are_processors_for(at: Installation, up: bool) -> None:
    if up:
        at.lyceum("up")
    words = ["run", "knowledge", "--data", str(at.data), "--workers", "64"]
    message = refused(at, *words, limit_s=100)
    assert "64 workers" in message
    assert "--workers" in message
    assert "1 node" in message


def test_an_artifact_that_is_corrupt(at: Installation) -> None:
    passing = ["--set", "gate.max_calibration_error=1"]
    at.lyceum("up")
    first = at.run(*smoke(at)[1:], *passing)
    at.run(*smoke(at)[1:], *passing, "--seed", "1", "--set", "spec.prior=3")
    for path in (at.home / "store").rglob("weights.safetensors"):
        live = json.loads((path.parent / "manifest.json").read_text())
        if "role" not in live.get("about", {}) and first["lineage"] not in str(path):
            path.write_bytes(path.read_bytes()[:-8])
    message = refused(at, "promote", "knowledge-smoke", "1")
    assert "weights.safetensors" in message
    live = {row["service"]: row for row in at.status()["services"]}["knowledge-smoke"]
    assert str(live["live"]) == "2"


def test_a_store_of_a_newer_version(at: Installation) -> None:
    (at.home / "store").mkdir(parents=True)
    (at.home / "store" / "format.json").write_text('{"format": 99}')
    message = refused(at, *smoke(at))
    assert "has format 99" in message
    assert "upgrade Lyceum" in message
