"""What is said where object storage cannot be had: what, where, and the way out."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import artifact, manifest, remote, store
from ray_jobs.data import history
from ray_jobs.data.sources import Source, find
from ray_jobs.errors import AwayError, RemoteError, UsageError
from ray_jobs.training import events
from ray_jobs.training.entry import enter
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.training.splits import Splits, tables
from ray_jobs.training.workers import fit_closed_form
from tests.nodes_parts import asked, splits_at
from tests.remote_parts import answering
from tests.s3_parts import PARTS, Server, free_ports, known, serving
from tests.test_manifest import INPUTS, Stage

OPERATIONS: dict[str, Callable[[str], Any]] = {
    "find": find,
    "find in a bucket": lambda uri: find(uri.rsplit("/", 1)[0]),
    "find by a glob": lambda uri: find(f"{uri}/*.csv"),
    "digest": lambda uri: Source(uri, ".csv", None).digest(),
    "read": lambda uri: Source(uri, ".csv", None).read(),
    "seekable": lambda uri: Source(uri, ".csv", None).seekable().__enter__(),
    "exists": store.exists,
    "read_json": store.read_json,
    "write_json": lambda uri: store.write_json(uri, 1),
    "sizes": store.sizes,
    "remove": store.remove,
    "fetch": lambda uri: store.fetch(uri, Path("unused")),
    "put_folder": lambda uri: store.put_folder(Path(__file__).parent / "exercise", uri),
    "history": history.snapshots,
    "a stage": lambda uri: manifest.once(uri, "clean", INPUTS, Stage()),
    "a new store": manifest.check,
}
WRONG: dict[str, tuple[dict[str, str], str]] = {
    "bucket": ({}, r"there is no bucket nobodys at {url}; make it, or name another"),
    "secret": (
        {"AWS_SECRET_ACCESS_KEY": "wrong"}, r"{url} does not let us in: .*; give AWS_ACCESS_KEY_ID",
    ),
    "key": ({"AWS_ACCESS_KEY_ID": "who"}, r"{url} does not let us in: .*; give AWS_ACCESS_KEY_ID"),
    "nobody": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "let us in: .*AWS_PROFILE"),
    "profile": ({"AWS_PROFILE": "nobodys"}, r"\(nobodys\) could not be found; give .*AWS_PROFILE"),
    "away": ({"AWS_ENDPOINT_URL": "{free}"}, r"{free} does not answer: .*; start it, or name"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_storage_that_cannot_be_had_is_told_the_same_by_whatever_asks(
    wrong: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(remote.S3_CONFIG, "retries", {"total_max_attempts": 1})
    variables, said = WRONG[wrong]
    places = {"url": s3_server.url, "free": f"http://127.0.0.1:{free_ports(1)[0]}"}
    environment = {name: value.format(**places) for name, value in variables.items()}
    with known(**s3_server.environment | environment):
        for name, operation in OPERATIONS.items():
            with pytest.raises(RemoteError) as caught:
                operation("s3://nobodys/delivery")
            assert str(caught.value).startswith("s3://nobodys"), name
            assert re.search(said.format(**places), str(caught.value)), (name, caught.value)


def test_a_server_that_says_nothing_is_given_up_within_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual, fraction = remote.S3_CONFIG["read_timeout"], 0.01
    monkeypatch.setitem(remote.S3_CONFIG, "read_timeout", usual * fraction)
    asked: list[socket.socket] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def listen() -> None:
            while True:
                try:
                    asked.append(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        with known(AWS_ENDPOINT_URL=url, **keys), pytest.raises(RemoteError, match="not answer"):
            store.exists("s3://bucket/file")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in asked:
        connection.close()
    assert 1 < len(asked) <= 30 / usual


def test_a_server_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(remote.S3_CONFIG, "retries", {"total_max_attempts": 1})
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    with (
        answering(lambda *_: (500, "text/plain", b"out of disks")) as url,
        known(AWS_ENDPOINT_URL=url, **keys),
        pytest.raises(RemoteError, match=rf"{url} could not do it: .*; see to it"),
    ):
        store.read_bytes("s3://bucket/file")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://", "names no bucket; expected s3://BUCKET/PATH"),
        ("s3://Not a bucket/x", "Invalid bucket name"),
        ("nonsense://x", "Protocol not known: nonsense"),
    ],
)
def test_a_url_of_no_place_is_refused(uri: str, said: str, s3: Server) -> None:
    for operation in (find, store.exists, store.read_json, store.sizes, history.snapshots):
        with pytest.raises((UsageError, RemoteError), match=said):
            operation(uri)


def test_an_address_that_is_none_is_refused() -> None:
    with (
        known(AWS_ENDPOINT_URL="localhost:9000"),
        pytest.raises(UsageError, match="localhost:9000"),
    ):
        store.exists("s3://bucket/x")


def test_what_training_writes_waits_for_a_server_that_went_away(tmp_path: Path) -> None:
    ports, said = free_ports(2 * len(PARTS)), [Event("epoch", 1, step) for step in (1, 2)]
    with serving(tmp_path, ports) as server:
        folder = server.bucket()
        uri = f"{folder}/events.jsonl"
        with known(**server.environment):
            events.append(uri, said[0])
    with known(**server.environment), remote.patience(), ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(events.append, uri, said[1])
        starting = pool.submit(events.next_attempt, uri)
        with pytest.raises(AwayError):
            remote.exists(uri)  # which asks once, and has no patience
        assert not any(work.done() for work in (waiting, starting))
        with serving(tmp_path, ports):
            waiting.result(timeout=60)
            assert events.read(uri) == said
            assert starting.result(timeout=60) == 2


def test_a_job_whose_record_lies_on_a_server_that_is_away_waits_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = free_ports(2 * len(PARTS))
    with serving(tmp_path, ports) as server, known(**server.environment):
        uri = asked(server.bucket(), "begun", family="astrology").save()

    def load(uri: str) -> TrainJob:
        raise UsageError(f"it is of {TrainJob.load(uri).family}")  # before a Ray would be asked

    with known(**server.environment), ThreadPoolExecutor(1) as pool:
        entering = pool.submit(enter, "ray_jobs.train", [uri], load, print)
        with pytest.raises(AwayError):
            remote.exists(uri)
        assert not entering.done()
        with serving(tmp_path, ports):
            assert entering.result(timeout=60) == UsageError.exit_code
    assert "it is of astrology" in capsys.readouterr().err


def test_a_training_whose_server_is_away_waits_for_it_and_loses_nothing(tmp_path: Path) -> None:
    ports = free_ports(2 * len(PARTS))
    with serving(tmp_path, ports) as server, known(**server.environment):
        place = splits_at(server.bucket(), tmp_path / "splits", learners=9)
        of = asked(place, "fitted", spec={"name": "rasch"})
        uri, splits = of.save(), Splits.seen(of, tables(of.train))
        splits.lesson()
    with known(**server.environment), ThreadPoolExecutor(1) as pool:
        splits.forget()  # of this node's disk: it asks nobody
        fitting = pool.submit(fit_closed_form, uri)
        with pytest.raises(AwayError):
            remote.exists(uri)
        assert not fitting.done()
        with serving(tmp_path, ports):
            digest = fitting.result(timeout=60)
            assert artifact.fetched(of.artifact).digest == digest
            assert [e.kind for e in events.read(of.events)] == ["started", "epoch", "finished"]


def test_only_who_has_patience_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)

    @remote.waits
    def ask(answers: list[str]) -> str:
        if answer := answers.pop(0):
            return answer
        raise AwayError("it does not answer")

    with remote.patience():
        assert ask(["", "", "here"]) == "here"
        with remote.patience(0), pytest.raises(AwayError, match="it does not answer"):
            ask(["", "here"])
        with ThreadPoolExecutor(1) as pool:  # as uploads are
            assert pool.submit(ask, ["", "here"]).result() == "here"
    with pytest.raises(AwayError, match="it does not answer"):
        ask(["", "here"])


def test_a_server_that_stays_away_is_waited_for_so_long_and_no_longer() -> None:
    asked: list[float] = []

    def never() -> None:
        asked.append(time.monotonic())
        raise AwayError("it does not answer")

    with pytest.raises(AwayError, match="it does not answer"):
        remote.patiently(never, limit_s=remote.PAUSE_S)
    assert 2 <= len(asked) <= 3
    refused = iter([RemoteError("no bucket")])

    def refuses() -> None:
        raise next(refused)

    with pytest.raises(RemoteError, match="no bucket"):
        remote.patiently(refuses)
