"""Whoever asks for a training is told how it ended, whatever becomes of Ray meanwhile.

A server here keeps the protocol of Ray's job API and tells a story; the client is Ray's own,
and time is a clock that nobody waits for.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flows.cli.console import Lines
from ray_jobs import remote
from ray_jobs.errors import AwayError, TrainingError
from ray_jobs.training import events, submit, watch
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from tests.remote_parts import Clock, Said, answering
from tests.test_train_ray import job

FIRST, SECOND = "train-toy-1", "train-toy-2"
Step = str | Callable[[], None]  # a status, "lost" where Ray does not answer, or what happens
STARTED, ONE, TWO = Event("started", 1), Event("epoch", 1, 1), Event("epoch", 1, 2)
DONE = Event("finished", 1, 2, detail={"digest": "d1"})
OLD = Event("failed", 1, detail={"error": "of an attempt before"}, time=time.time() - 3600)


class Ray:
    """A dashboard: its jobs, and a story that goes on each time somebody asks for a status."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.story: list[Step] = []
        self.log = ""
        self.stopping = 1  # looks until a job that is told to stop has ended; below 0: refused
        self.takes: Callable[[dict[str, Any]], None] = self.queues

    def queues(self, asked: dict[str, Any]) -> None:
        assert asked["entrypoint_num_cpus"] == 0, "the workers would have one CPU less"
        told = {name: asked[name] for name in ("entrypoint", "metadata")}
        self.has(asked["submission_id"], "PENDING", **told)

    def has(self, name: str, status: str, **more: Any) -> None:
        usual = {"type": "SUBMISSION", "entrypoint": "x", "start_time": 1000 * int(time.time() - 5)}
        self.jobs[name] = {**usual, "submission_id": name, "status": status, **more}

    def __call__(self, method: str, path: str, body: bytes) -> Said:
        try:
            return 200, "application/json", json.dumps(self.asked(method, path, body)).encode()
        except RuntimeError as error:
            return 500, "text/plain", str(error).encode()

    def asked(self, method: str, path: str, body: bytes) -> Any:
        if path == "/api/version":
            return {"version": "4", "ray_version": "2.60.0", "ray_commit": ""}
        name, _, verb = path.removeprefix("/api/jobs/").partition("/")
        if not name and method == "GET":
            return list(self.jobs.values())
        if not name:
            asked = json.loads(body)
            self.takes(asked)
            return {"job_id": asked["submission_id"], "submission_id": asked["submission_id"]}
        if verb == "stop":
            return self.stops(self.jobs[name])
        return {"logs": self.log} if verb == "logs" else self.looked_at(self.jobs[name])

    def stops(self, of: dict[str, Any]) -> dict[str, bool]:
        if self.stopping < 0:
            raise RuntimeError("no agent is alive")
        self.story = [*[of["status"]] * self.stopping, "STOPPED"]
        return {"stopped": True}

    def looked_at(self, of: dict[str, Any]) -> dict[str, Any]:
        if of["status"] in ("FAILED", "STOPPED", "SUCCEEDED"):
            return of
        while self.story and callable(happens := self.story[0]):
            happens()
            del self.story[0]
        step = self.story.pop(0) if self.story else of["status"]
        if step == "lost":
            raise RuntimeError("no answer")
        of["status"] = step
        return of


@dataclass
class Asked:
    """A training, the Ray that is asked for it, and who follows it."""

    ray: Ray
    job: TrainJob
    address: str

    def submitted(self) -> str:
        return submit.submit(self.job, self.address)

    def says(self, *told: Event) -> Callable[[], None]:
        """A step of a story: the job writes events."""

        def happens() -> None:
            for event in told:
                events.append(self.job.events, event)

        return happens

    def followed(
        self, *story: Step, on_event: Callable[[Event], None] | None = None
    ) -> list[Event]:
        """Submit and follow to the end; what was told on the way."""
        told: list[Event] = []
        self.ray.story = list(story)
        digest = submit.wait(self.job, self.submitted(), self.address, on_event or told.append)
        assert digest == "d1"
        return told

    def refused(self, *story: Step) -> str:
        """Submit and follow to a bad end; what is said of it."""
        with pytest.raises(TrainingError) as caught:
            self.followed(*story)
        return str(caught.value)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    toy = job(tmp_path, tmp_path / "a folder with spaces", name="toy")
    ray = Ray()
    with answering(ray) as url:
        yield Asked(ray, toy, url)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (submit, watch):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_job_starts_as_the_command_that_trains_it(asked: Asked) -> None:
    assert submit.submit(asked.job, asked.address.removeprefix("http://")) == FIRST
    python, *module, uri = shlex.split(asked.ray.jobs[FIRST]["entrypoint"])
    assert [python, *module] == [sys.executable, "-m", "ray_jobs.train"]
    assert TrainJob.load(uri) == asked.job


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_job_that_is_under_way_is_followed_and_not_started_twice(
    status: str, asked: Asked
) -> None:
    asked.ray.has(FIRST, "FAILED")
    asked.ray.has(SECOND, status)
    asked.ray.has("train-other-1", "RUNNING")
    asked.ray.jobs["driver"] = {"type": "DRIVER", "entrypoint": "x", "status": "RUNNING"}
    before = dict(asked.ray.jobs)
    assert asked.submitted() == SECOND
    assert asked.ray.jobs == before


@pytest.mark.parametrize("status", ["FAILED", "STOPPED", "SUCCEEDED"])
def test_a_job_that_has_ended_is_started_anew_beside_it(status: str, asked: Asked) -> None:
    asked.ray.has(FIRST, status)
    asked.ray.has("train-other-1", "RUNNING")
    assert asked.submitted() == SECOND
    assert asked.ray.jobs[FIRST]["status"] == status


def test_of_two_who_ask_at_one_moment_both_follow_one_job(asked: Asked) -> None:
    def somebody_elses(request: dict[str, Any]) -> None:
        asked.ray.has(request["submission_id"], "RUNNING")
        raise RuntimeError("a job of this id exists")

    asked.ray.takes = somebody_elses
    assert asked.submitted() == FIRST
    assert list(asked.ray.jobs) == [FIRST]


def test_a_ray_that_takes_no_job_is_quoted(asked: Asked) -> None:
    def full(_: dict[str, Any]) -> None:
        raise RuntimeError("no agent is alive")

    asked.ray.takes = full
    with pytest.raises(TrainingError, match=f"Ray at {asked.address} took no job: .*no agent is"):
        asked.submitted()


def test_where_no_dashboard_answers_its_address_is_told(asked: Asked) -> None:
    with answering(asked.ray) as gone:
        pass
    with pytest.raises(TrainingError, match=f"no Ray dashboard answers at {gone}: Failed to conn"):
        submit.submit(asked.job, gone.removeprefix("http://"))


def test_every_event_is_told_once_and_in_order_to_the_last(asked: Asked) -> None:
    again = Event("epoch", 2, 1)
    begin: list[Step] = ["PENDING", asked.says(STARTED), "RUNNING", asked.says(ONE), "RUNNING"]
    end: list[Step] = ["lost", "RUNNING", asked.says(again, TWO, DONE), "SUCCEEDED"]
    assert asked.followed(*begin, *end) == [STARTED, ONE, TWO, DONE]


def test_the_last_word_of_a_job_is_waited_for_while_the_storage_is_away(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail, away = events.tail, list[str]()

    def asks(uri: str, offset: int = 0) -> tuple[list[Event], int]:
        if away:
            raise AwayError(away.pop())
        return tail(uri, offset)

    monkeypatch.setattr(events, "tail", asks)
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    begin: list[Step] = [asked.says(STARTED), "RUNNING", asked.says(ONE, TWO, DONE)]
    end: list[Step] = [lambda: away.extend(["it does not answer"] * 4), "SUCCEEDED"]
    assert asked.followed(*begin, *end) == [STARTED, ONE, TWO, DONE]
    assert not away


def test_a_job_that_failed_is_told_in_its_own_words(asked: Asked) -> None:
    asked.ray.log = "Traceback, and much else"
    complaint = Event("failed", 1, detail={"error": "loss is nan; lower budget.learning_rate"})
    said = asked.refused("RUNNING", asked.says(OLD, complaint), "FAILED")
    assert said == "loss is nan; lower budget.learning_rate"


def test_what_its_holder_left_running_is_stopped_before_another_begins(asked: Asked) -> None:
    mine, others = {submit.HOLDER: "a home"}, {submit.HOLDER: "another home"}
    asked.ray.has("train-toy-1", "RUNNING", metadata=mine)
    asked.ray.has("train-before-1", "RUNNING", metadata=mine)
    asked.ray.has("train-long-ago-1", "SUCCEEDED", metadata=mine)
    asked.ray.has("tune-before-1", "RUNNING", metadata=mine)
    asked.ray.has("train-else-1", "RUNNING", metadata=others)
    asked.ray.has("train-nobodys-1", "RUNNING")
    kept = dict(asked.ray.jobs)
    asked.job = replace(asked.job, holder="a home")
    assert asked.submitted() == "train-toy-1", "it is followed again"
    ended = [name for name, of in asked.ray.jobs.items() if of["status"] == "STOPPED"]
    assert ended == ["train-before-1"]
    asked.ray.jobs = {"train-nobodys-1": kept["train-nobodys-1"]}
    asked.job = replace(asked.job, name="new", holder="")
    assert asked.submitted() == "train-new-1"
    assert asked.ray.jobs["train-nobodys-1"]["status"] == "RUNNING"
    asked.job = replace(asked.job, name="newer", holder="a home")
    assert asked.ray.jobs[asked.submitted()]["metadata"] == mine


def test_what_a_job_prints_is_passed_on_line_by_line_and_once(
    asked: Asked, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def prints(text: str) -> Callable[[], None]:
        def happens() -> None:
            asked.ray.log += text

        return happens

    looks = ["RUNNING"] * (1 + int(watch.LOG_S / watch.POLL_S))
    story: list[Step] = [*looks, prints("one\n\x1b[36mtwo\x1b[0m\nthr"), *looks, prints("ee\n")]
    with caplog.at_level(logging.INFO, "ray_jobs"):
        logging.getLogger("ray_jobs").addHandler(lines := Lines())
        asked.followed(*story, asked.says(STARTED, ONE, DONE), "SUCCEEDED")
        logging.getLogger("ray_jobs").removeHandler(lines)
    said = [record for record in caplog.records if getattr(record, "of_job", "") == FIRST]
    assert [record.message for record in said] == ["one", "two", "three"]
    assert "two" not in capsys.readouterr().out, "on a terminal it would drown the epochs"


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ([], "FAILED"),
        ([OLD], "FAILED"),
        ([ONE], "FAILED"),
        ([DONE], "FAILED"),
        ([ONE], "SUCCEEDED"),
    ],
)
def test_a_job_that_ended_without_a_word_of_its_own_is_told_by_the_end_of_its_log(
    told: list[Event], status: str, asked: Asked
) -> None:
    asked.ray.log = "\n".join([f"line {n}" for n in range(60)]) + "\n\n"
    story: list[Step] = ["RUNNING", asked.says(*told), status]
    lives = submit.LIVES if status == "FAILED" else 1
    first, *rest = asked.refused(*story * lives).splitlines()
    assert len(asked.ray.jobs) == lives, "what dies without a word is tried again, but not for ever"
    assert first == f"training ended {status}; the end of its log:"
    assert rest == [f"line {n}" for n in range(35, 60)]


def test_a_job_that_was_killed_is_started_again_and_told_of_once(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    first: list[Step] = ["RUNNING", asked.says(STARTED, ONE), "RUNNING", "FAILED"]
    again = Event("started", 2)
    second: list[Step] = ["PENDING", "RUNNING", asked.says(again, ONE, TWO, DONE), "SUCCEEDED"]
    with caplog.at_level(logging.WARNING, "ray_jobs"):
        assert asked.followed(*first, *second) == [STARTED, ONE, again, TWO, DONE]
    assert list(asked.ray.jobs) == [FIRST, SECOND]
    assert caplog.messages == [f"training {FIRST} died without a word; going on with it"]


def test_a_job_that_was_stopped_or_said_why_is_not_started_again(asked: Asked) -> None:
    complaint = Event("failed", 1, detail={"error": "loss is nan"})
    assert asked.refused("RUNNING", asked.says(complaint), "FAILED") == "loss is nan"
    assert "was stopped" in asked.refused("STOPPED")
    assert list(asked.ray.jobs) == [FIRST, SECOND]


def test_a_job_that_somebody_stopped_may_be_run_again(asked: Asked) -> None:
    said = asked.refused("RUNNING", "STOPPED")
    assert said == "training train-toy-1 was stopped; run again and it goes on"


def test_a_job_that_does_not_start_in_time_is_stopped_and_told(asked: Asked, clock: Clock) -> None:
    asked.ray.stopping, begin = 5, clock.now
    said = asked.refused(*["PENDING"] * 1000)
    assert said.startswith("training did not start within 60 s; the Ray it was submitted to is ")
    assert said.endswith("(`lyceum status`)")
    assert 60 < clock.now - begin < 65
    assert asked.ray.jobs[FIRST]["status"] == "STOPPED"


def test_a_job_may_run_for_hours_and_ray_be_lost_now_and_then(asked: Asked, clock: Clock) -> None:
    def hours() -> None:
        clock.now += 7200

    lost = ["lost"] * 95  # a good 28 seconds
    long: list[Step] = ["PENDING", "RUNNING", hours, "RUNNING", *lost, "RUNNING", *lost, "RUNNING"]
    assert asked.followed(*long, asked.says(DONE), "SUCCEEDED") == [DONE]


def test_a_ray_that_stays_silent_is_given_up_with_the_way_on(asked: Asked, clock: Clock) -> None:
    begin = clock.now
    said = asked.refused("RUNNING", *["lost"] * 1000)
    assert said.startswith("Ray has not answered for 30 s (Request failed with status code 500")
    assert said.endswith("start it and run again, training goes on from its last checkpoint")
    assert 30 < clock.now - begin < 35


def interrupt(_: Event) -> None:
    raise KeyboardInterrupt


def test_a_follower_that_is_interrupted_sees_its_job_end(asked: Asked) -> None:
    asked.ray.stopping = 4
    with pytest.raises(KeyboardInterrupt):
        asked.followed(asked.says(ONE), "RUNNING", on_event=interrupt)
    assert asked.ray.jobs[FIRST]["status"] == "STOPPED"


@pytest.mark.parametrize(
    ("stopping", "warning"),
    [
        (1000, "training train-toy-1 did not stop within 15 s"),
        (-1, "could not stop training train-toy-1: .*no agent is alive"),
    ],
)
def test_a_job_that_cannot_be_stopped_is_told_and_hides_no_interrupt(
    stopping: int, warning: str, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    asked.ray.stopping = stopping
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING, "ray_jobs"):
        asked.followed(asked.says(ONE), "RUNNING", on_event=interrupt)
    (record,) = caplog.records
    assert re.match(warning, record.getMessage())
