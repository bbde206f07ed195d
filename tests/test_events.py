"""The record of a training holds through any order of writing, dying, doubling and reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import fsspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import store
from ray_jobs.training import events
from ray_jobs.training.events import Event, Follower

SOME = settings(max_examples=40, deadline=None)  # each writes files
Act = Callable[[str, "Model"], None]

EVENTS = st.builds(
    Event,
    kind=st.sampled_from(["epoch", "epoch", "epoch", "started", "finished"]),
    attempt=st.integers(1, 3),
    step=st.integers(0, 2),
    metrics=st.dictionaries(st.sampled_from(["auc", "loss"]), st.floats(0, 1), max_size=2),
    detail=st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.none(), max_size=2),
    time=st.floats(0, 2e9),
)
STRANGE = st.sampled_from([b"5", b"null", b"[]", b'{"kind":"epoch"}', b"\xff", b"", b"{}"])


class Model:
    """What a record should say: a plain list, and two who read it, one of them rarely."""

    def __init__(self, uri: str) -> None:
        self.written: list[Event] = []
        self.follower, self.followed = Follower(uri), list[Event]()
        self.offset, self.tailed = 0, list[Event]()

    def epochs_once(self) -> list[Event]:
        once: list[Event] = []
        for event in self.written:
            known = {known.step for known in once if known.kind == "epoch"}
            once += [] if event.kind == "epoch" and event.step in known else [event]
        return once


def before(uri: str) -> bytes:
    return store.read_bytes(uri) if store.exists(uri) else b""


def put(uri: str, data: bytes) -> None:
    with fsspec.open(uri, "wb", auto_mkdir=True) as file:
        file.write(data)


def appends(event: Event) -> Act:
    def act(uri: str, model: Model) -> None:
        events.append(uri, event)
        model.written.append(event)

    return act


def dies(event: Event, share: float) -> Act:
    """A writer that is killed within its line."""

    def act(uri: str, model: Model) -> None:
        line = orjson.dumps(event)
        put(uri, before(uri) + line[: int(share * (len(line) - 1))])

    return act


def disturbs(line: bytes) -> Act:
    def act(uri: str, model: Model) -> None:
        closed = before(uri) if before(uri)[-1:] in (b"", b"\n") else before(uri) + b"\n"
        put(uri, closed + line + b"\n")

    return act


def polls(uri: str, model: Model) -> None:
    model.followed += model.follower.poll()
    assert model.followed == model.epochs_once()


def tails(uri: str, model: Model) -> None:
    found, model.offset = events.tail(uri, model.offset)
    model.tailed += found
    assert model.tailed == model.written


ACTS = st.one_of(
    *[EVENTS.map(appends)] * 3,
    st.builds(dies, EVENTS, st.floats(0, 0.99)),
    STRANGE.map(disturbs),
    st.just(tails),
)


@SOME
@given(st.lists(ACTS, min_size=4, max_size=12), st.sampled_from(["disk", "memory"]))
def test_each_line_that_was_written_whole_is_read_once_and_no_other(
    acts: Sequence[Act], where: str
) -> None:
    with TemporaryDirectory() as folder:
        uri = f"{folder}/run/events.jsonl" if where == "disk" else f"memory://{uuid4().hex}/events"
        model = Model(uri)
        for act in [*acts, tails]:
            act(uri, model)
            polls(uri, model)
        assert events.read(uri) == model.written
        attempts = [event.attempt for event in model.written]
        assert events.next_attempt(uri) == max(attempts, default=0) + 1
        assert events.last_attempt(uri) == max(attempts, default=1)


def test_many_who_write_at_once_lose_no_line(tmp_path: Path) -> None:
    uri = str(tmp_path / "run" / "events.jsonl")
    written = [Event("epoch", 1, n, detail={"said": "x" * 40 * n}) for n in range(100)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda event: events.append(uri, event), written))
    assert sorted(events.read(uri), key=lambda event: event.step) == written


def test_a_line_that_is_no_event_is_told_by_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    events.append(str(path), Event("epoch", 1, 1))
    path.write_bytes(path.read_bytes() + b'{"kind":"ep\n')
    assert len(events.read(str(path))) == 1
    assert f"{path}: skipped a torn line of 11 bytes" in caplog.text


def test_a_job_that_is_reused_is_told_as_the_attempt_that_made_it(tmp_path: Path) -> None:
    uri = str(tmp_path / "events.jsonl")
    about = {"epochs": 7, "best_epoch": 5, "rows_per_s": 10.5, "workers": 2, "lineage": "abc"}
    done = events.finished(uri, "d", about)
    assert done.attempt == 1
    for attempt in (1, 2):
        events.append(uri, Event("started", attempt))
    again = events.finished(uri, "d", about, reused=True)
    assert again == replace(
        done, attempt=2, detail={**done.detail, "reused": True}, time=again.time
    )
