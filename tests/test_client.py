"""What who calls a service from Python may count on, whatever happens between."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.client import (
    AnotherVersion,
    Answer,
    AsyncClient,
    Client,
    Feedback,
    Forbidden,
    InvalidRequest,
    LyceumApiError,
    NotFound,
    RateLimited,
    ServerFault,
    TooLarge,
    Unauthorized,
    UnexpectedAnswer,
    calls,
)
from ray_jobs.client import pieces as cutting
from ray_jobs.client.errors import KINDS, PLAIN
from ray_jobs.client.pieces import pieces, written
from ray_jobs.errors import LyceumError, UsageError
from tests.client_parts import KEY, STAMP, Clock, Make, Reply, askers, plain, playing, problem

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Make]:
    with askers(request.param, clock) as one:
        yield one


class Level(Answer):
    level: float


# What comes back.


def test_an_answer_tells_its_model_and_its_fields_by_name_or_typed(make: Make) -> None:
    reply = Reply(body={**STAMP, "prediction_id": "p-1", "level": 0.5, "reasons": [{"a": 1}]})
    with playing(reply) as service:
        told = make(service.url)("call", "mastery", {"history": []}, explain=True)
        assert (told.version, told.lineage) == (STAMP["version"], STAMP["lineage"])
        assert (told.prediction_id, told["level"], told.reasons) == ("p-1", 0.5, [{"a": 1}])
        assert told.request_id == service.heard[0].headers["x-request-id"]
        with pytest.raises(KeyError, match="'leevl' is not in the answer; there are version"):
            told["leevl"]
        typed = make(service.url)("call", "mastery", {"history": []}, answer=Level)
        assert typed.level == typed["level"] == 0.5
    assert service.heard[0].path == "/algebra-practice/v1/mastery?explain=true"
    assert service.heard[1].path == "/algebra-practice/v1/mastery"
    assert service.heard[0].body == {"history": []}


def test_the_id_a_server_gives_a_request_is_the_one_that_is_told(make: Make) -> None:
    with playing(Reply(headers={"x-request-id": "theirs"})) as service:
        assert make(service.url)("predict", history=[]).request_id == "theirs"
    assert service.heard[0].body == {"history": []}


def test_a_key_goes_with_each_call_and_connections_stay_open(make: Make) -> None:
    with playing(Reply()) as service:
        ask = make(service.url + "/")
        for _ in range(3):
            ask("predict", history=[])
    assert {one.headers["authorization"] for one in service.heard} == {f"Bearer {KEY}"}
    assert {one.headers["content-type"] for one in service.heard} == {"application/json"}
    assert len({one.headers["x-request-id"] for one in service.heard}) == 3
    assert len({one.port for one in service.heard}) == 1


def test_feedback_tells_how_many_outcomes_are_kept(make: Make) -> None:
    with playing(Reply(body={**STAMP, "recorded": 2})) as service:
        ask = make(service.url)
        assert ask("feedback", "p-1", [1, None, 0], time_s=1.8e9) == 2
        assert ask("feedback_many", [Feedback("p-1", [1]), Feedback("p-2", ["pass"])]) == 2
        assert ask("feedback_many", []) == 0
        with pytest.raises(InvalidRequest, match=r"no prediction_id; that of v1/predict has one"):
            ask("feedback", None, [1])
    one, many = service.heard
    assert one.path == many.path == "/algebra-practice/v1/feedback"
    assert one.body == {"prediction_id": "p-1", "outcomes": [1, None, 0], "time": 1.8e9}
    told = [
        {"prediction_id": "p-1", "outcomes": [1]},
        {"prediction_id": "p-2", "outcomes": ["pass"]},
    ]
    assert many.body == {"instances": told}


def test_a_card_tells_which_model_serves(make: Make) -> None:
    body = {**STAMP, "service": "s", "family": "f", "digest": "d", "metrics": {"auc": 0.8}}
    with playing(Reply(body=body)) as service:
        card = make(service.url)("card")
    assert (card.version, card.service, card["metrics"]) == ("7", "s", {"auc": 0.8})
    assert (service.heard[0].method, service.heard[0].path) == ("GET", "/algebra-practice/v1/model")


@pytest.mark.parametrize(
    ("reply", "ready"),
    [
        (Reply(body={"status": "ready"}), True),
        (problem(503), False),
        (plain(500), False),
        (plain(404), False),
        (Reply(fault="reset"), False),
    ],
)
def test_whether_it_is_ready_is_asked_once(
    make: Make, clock: Clock, reply: Reply, ready: bool
) -> None:
    with playing(reply) as service:
        assert make(service.url)("ready") is ready
    assert (len(service.heard), clock.pauses) == (1, [])
    assert not make(service.url)("ready"), "nobody is there any more"


# What is told of a failure.

ERRORS: dict[int, type[LyceumApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: InvalidRequest,
    409: AnotherVersion,
    413: TooLarge,
    415: InvalidRequest,
    422: InvalidRequest,
    500: ServerFault,
}


@pytest.mark.parametrize("status", ERRORS)
def test_each_refusal_is_an_error_of_its_own_and_not_asked_again(
    make: Make, clock: Clock, status: int
) -> None:
    wrong = [{"pointer": "/history/0/item", "detail": "Field required"}]
    with playing(problem(status, errors=wrong)) as service, pytest.raises(LyceumError) as caught:
        make(service.url)("predict", history=[])
    error = caught.value
    assert type(error) is ERRORS[status]
    assert (error.status, clock.pauses, len(service.heard)) == (status, [], 1)
    assert [one.model_dump() for one in error.errors] == wrong
    asked = service.heard[0].headers["x-request-id"]
    assert str(error) == (
        f"POST {service.url}/v1/predict: {status} A title: what is (request {asked})"
    )
    assert error.request_id == asked


def test_a_problem_without_a_hint_still_says_what_to_do(make: Make) -> None:
    for reply in (plain(401), Reply(401, "{", "application/problem+json"), problem(401, detail="")):
        with playing(reply) as service, pytest.raises(Unauthorized, match="lyceum keys create"):
            make(service.url)("predict", history=[])


def test_errors_travel_between_processes() -> None:
    error = RateLimited("too many", status=429, request_id="r", retry_after_s=2.0)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.retry_after_s) == ("too many", 429, 2.0)


def test_every_status_of_a_service_has_its_error() -> None:
    from ray_jobs.serving.openapi_parts import FAILURES

    assert {404, 405, *map(int, FAILURES)} <= set(KINDS) <= set(PLAIN)


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (Reply(body="<html>", kind="text/html"), "the answer is not JSON"),
        (Reply(body="[]"), "the answer is not a JSON object"),
        (Reply(body={"version": "7"}), "is no Level: /lineage: Field required"),
        (Reply(body={**STAMP, "level": "high"}), "is no Level: /level: Input should be a valid"),
        (Reply(302, "", headers={"location": "http://elsewhere/"}), "302: this is not an answer"),
    ],
)
def test_what_is_no_answer_is_not_taken_for_one(make: Make, reply: Reply, what: str) -> None:
    with playing(reply) as service, pytest.raises(UnexpectedAnswer, match=what):
        make(service.url)("call", "predict", {}, answer=Level)


@pytest.mark.parametrize("answers", [None, [], [{}, {}], ["text"]])
def test_as_many_answers_as_requests_or_none(make: Make, answers: Any) -> None:
    with (
        playing(Reply(body={**STAMP, "answers": answers})) as service,
        pytest.raises(UnexpectedAnswer, match="there are not 1 answers to 1 requests"),
    ):
        make(service.url)("call_many", "predict", [{}])


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, "\ud800"])
def test_what_json_has_no_word_for_is_told_before_it_is_sent(make: Make, value: Any) -> None:
    ask = make("http://127.0.0.1:9/nobody")
    with pytest.raises(InvalidRequest, match="the request cannot be written as JSON"):
        ask("predict", history=[value])
    with pytest.raises(InvalidRequest, match="/instances/1 cannot be written as JSON"):
        ask("call_many", "predict", [{}, {"a": value}])


def test_a_body_that_no_service_takes_is_not_sent(make: Make) -> None:
    with pytest.raises(TooLarge, match="at most 16777216 at once"):
        make("http://127.0.0.1:9/nobody")("predict", text="x" * cutting.MAX_BODY)


# Many at once.


def test_a_long_list_goes_in_pieces_and_comes_back_in_order(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "MAX_INSTANCES", 2)
    parts = [[0.0, 0.1], [0.2, 0.3], [0.4]]
    script = [Reply(body={**STAMP, "answers": [{"level": x} for x in part]}) for part in parts]
    with playing(*script) as service:
        asked = ({"n": n} for n in range(5))
        told = make(service.url)("call_many", "predict", asked, answer=Level)
    assert [one.level for one in told] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert {(one.version, one.prediction_id) for one in told} == {("7", None)}
    sent = [[one["n"] for one in request.body["instances"]] for request in service.heard]
    assert sent == [[0, 1], [2, 3], [4]]
    ids = [request.headers["x-request-id"] for request in service.heard]
    assert [one.request_id for one in told] == [ids[0], ids[0], ids[1], ids[1], ids[2]]


def test_a_piece_that_costs_too_much_is_halved(make: Make) -> None:
    halves = [Reply(body={**STAMP, "answers": [{"level": x}] * n}) for n, x in ((1, 0.1), (2, 0.2))]
    with playing(problem(413), *halves) as service:
        told = make(service.url)("call_many", "predict", [{"n": n} for n in range(3)])
    assert [one["level"] for one in told] == [0.1, 0.2, 0.2]
    assert [len(request.body["instances"]) for request in service.heard] == [3, 1, 2]
    with playing(problem(413)) as service, pytest.raises(TooLarge):
        make(service.url)("call_many", "predict", [{}, {}])
    assert len(service.heard) == 2, "one alone cannot be halved"


def test_what_is_wrong_with_one_of_many_is_told_by_its_place_among_all(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "MAX_INSTANCES", 2)
    fine = Reply(body={**STAMP, "answers": [{}, {}]})
    where = "/instances/1/history"
    bad = problem(422, detail=f"{where}: no", errors=[{"pointer": where, "detail": "no"}])
    with playing(fine, bad) as service, pytest.raises(InvalidRequest) as caught:
        make(service.url)("call_many", "predict", [{}] * 5)
    assert caught.value.errors[0].pointer == "/instances/3/history"
    assert "422 A title: /instances/3/history: no" in str(caught.value)


@given(
    requests=st.lists(st.dictionaries(st.text(), st.text() | st.integers()), max_size=30),
    most=st.integers(1, 8),
    longest=st.integers(20, 200),
)
def test_pieces_hold_all_in_order_and_keep_the_limits(
    requests: list[dict[str, Any]], most: int, longest: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "MAX_INSTANCES", most)
        patch.setattr(cutting, "MAX_BODY", longest)
        cut = list(pieces(requests))
    assert [one for piece in cut for one in json.loads(piece.body)["instances"]] == requests
    assert [piece.first for piece in cut] == [sum(map(len, cut[:n])) for n in range(len(cut))]
    assert all(1 <= len(piece) <= most for piece in cut)
    assert all(len(piece.body) <= longest or len(piece) == 1 for piece in cut)
    for piece in cut:
        halves = piece.halves()
        assert [*halves[0].instances, *halves[1].instances] == piece.instances
        assert halves[1].first == piece.first + len(halves[0])


@given(st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_a_request_is_written_as_it_is(request: dict[str, Any]) -> None:
    assert json.loads(written(request)) == request


# The key, and what it takes.


def test_a_key_comes_from_the_environment_and_must_be_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LYCEUM_API_KEY", f"{KEY}\n")
    assert calls.headers(None)["authorization"] == f"Bearer {KEY}"
    assert calls.headers("other")["authorization"] == "Bearer other"
    monkeypatch.delenv("LYCEUM_API_KEY")
    for nothing in (None, "", " \n"):
        with pytest.raises(UsageError, match=r"no key: pass key=.*LYCEUM_API_KEY"):
            Client("http://here/s", key=nothing)
    for bad in ("sesame and\r\nx: y", "sésame", "ses ame"):
        with pytest.raises(UsageError, match="not shown here") as caught:
            AsyncClient("http://here/s", key=bad)
        assert bad not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["here/s", "ftp://here/s", "http://", "http://here/s?x=1", "http://u:secret@here/s", "\0"],
)
def test_a_url_must_be_that_of_a_service(url: str) -> None:
    with pytest.raises(UsageError, match="expected such as http://host:8000/") as caught:
        Client(url, key=KEY)
    assert "secret" not in str(caught.value)


def test_a_key_is_shown_nowhere(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    with playing(Reply(), problem(422), problem(500), plain(404), Reply(fault="reset")) as service:
        ask = make(service.url, timeout_s=1)
        ask("predict", history=[])
        for _ in range(4):
            with pytest.raises(LyceumApiError) as caught:
                ask("predict", history=[])
            shown += [repr(caught.value), str(caught.value), repr(vars(caught.value))]
            shown += [repr(caught.value.__cause__), *caught.value.__notes__]
    shown += [repr(ask.client), str(ask.client), caplog.text]
    assert repr(ask.client).endswith(f"Client('{service.url}')")
    assert KEY not in "".join(shown)
    assert "127.0.0.1" in caplog.text


BARE = """
import sys
ALLOWED = {"ray_jobs", "httpx", "httpcore", "h11", "anyio", "sniffio", "idna", "certifi",
           "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in ALLOWED or top in sys.stdlib_module_names or top.startswith("_sysconfig")
        if not known:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from ray_jobs.client import AsyncClient, Client, Unavailable
with Client("http://127.0.0.1:9/nobody", key="k", timeout_s=0.01) as client:
    assert not client.ready()
    try:
        client.predict(history=[])
    except Unavailable:
        print("imported")
assert not {"numpy", "torch", "ray", "orjson", "polars"} & set(sys.modules)
"""


def test_it_needs_httpx_and_pydantic_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BARE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "imported"), done.stderr[-2000:]


def test_both_clients_have_one_surface() -> None:
    def surface(kind: type[Any]) -> dict[str, Any]:
        public = {n: f for n, f in vars(kind).items() if inspect.isfunction(f) and n[0] != "_"}
        public.pop("close" if kind is Client else "aclose")
        return {name: (inspect.signature(f), f.__doc__) for name, f in public.items()}

    assert surface(Client) == surface(AsyncClient)
    assert len(surface(Client)) == 7


def test_many_calls_of_one_client_are_under_way_at_once() -> None:
    async def asked(url: str) -> list[Answer]:
        async with AsyncClient(url, key=KEY) as client:
            return await asyncio.gather(*(client.predict(n=n) for n in range(20)))

    with playing(Reply()) as service:
        told = asyncio.run(asked(service.url))
    assert len({one.request_id for one in told}) == 20
    assert sorted(one.body["n"] for one in service.heard) == list(range(20))
