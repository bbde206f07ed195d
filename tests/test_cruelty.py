"""Whatever is sent, no handler fails: an answer, or a refusal that names what is wrong."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_jobs.artifact import Artifact
from ray_jobs.predictor import predict
from ray_jobs.serving import batching, deadlines
from ray_jobs.serving.feedback import Recorder
from ray_jobs.serving.surface import House, Surface
from tests.surface_parts import KEY, SERVICE, Ask, answer, asking, question, released

POSTS = ("predict", "mastery", "next", "state", "feedback")
ROUTES = (*(f"v1/{name}" for name in POSTS), f"v2/models/{SERVICE}/infer")
DEEP = 100_000
PREDICTED = {"probability", "level"}


@pytest.fixture(scope="module")
def app(model: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Surface:
    recorder = Recorder(str(tmp_path_factory.mktemp("store")), SERVICE)
    return Surface(model, released(model), KEY, house=House(recorder=recorder))


@pytest.fixture(scope="module")
def ask(app: Surface) -> Iterator[Ask]:
    with asking(app) as one:
        yield one


def endured(told: httpx.Response) -> httpx.Response:
    """An answer whose numbers are numbers, or a problem that says what to do."""
    assert told.status_code < 500, told.text
    if told.status_code >= 400:
        problem = told.json()
        assert told.headers["content-type"] == "application/problem+json"
        assert problem["detail"]
        if told.status_code == 422 and not problem["detail"].startswith("query "):
            assert all({"pointer", "detail"} <= error.keys() for error in problem["errors"])
            assert problem["errors"]
    else:
        assert all(math.isfinite(number) for number in numbers(told.json()))
    return told


def numbers(part: Any) -> Iterator[float]:
    if isinstance(part, dict):
        # What is no number has no JSON but null.
        assert None not in [part[name] for name in PREDICTED & part.keys()], part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from numbers(each)
    elif isinstance(part, int | float):
        yield part


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "spaces": b" " * 100_000,
    "no text": bytes(range(256)),
    "invalid UTF-8": b'{"history": [{"item": "\xff\xfe", "correct": 1}]}',
    "half a surrogate": b'{"learner": "\\ud800", "candidates": [{"item": "a"}]}',
    "NUL": b'{"learner": "\\u0000", "candidates": [{"item": "\\u0000"}]}',
    "NaN": b'{"history": [{"item": "a", "correct": NaN}]}',
    "infinity": b'{"history": [{"item": "a", "correct": Infinity}]}',
    "beyond floats": b'{"time": 1e400, "candidates": [{"item": "a"}]}',
    "beyond integers": b'{"time": ' + b"9" * 400 + b', "candidates": [{"item": "a"}]}',
    "nested lists": b"[" * DEEP + b"]" * DEEP,
    "nested objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "nested history": b'{"history": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a million instances": b'{"instances": [' + b",".join([b"{}"] * 1_000_000) + b"]}",
    "the same key twice": b'{"candidates": 1, "candidates": [{"item": "a"}], "history": []}',
    "a very long name": b'{"candidates": [{"item": "' + b"a" * 1_000_000 + b'"}]}',
    "a very long key": b'{"' + b"a" * 1_000_000 + b'": 1}',
    "ten thousand keys": orjson.dumps({f"k{i}": i for i in range(10_000)}),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_no_body_breaks_a_handler(ask: Ask, route: str, body: bytes) -> None:
    told = endured(ask("POST", route, body))
    assert len(told.content) < 100_000, "a refusal does not echo what it refuses"


WORDS = [
    "'; DROP TABLE learners; --",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "<script>alert(1)</script>",
    "../../../etc/passwd",
    "%s%n%x {0} {}",
    "\u202e\u0000\ufeff",
    "a\r\nx-lyceum-version: 9",
    "🎓" * 50,
]


@pytest.mark.parametrize("word", WORDS)
def test_a_name_is_a_name_whatever_it_says(ask: Ask, word: str) -> None:
    body = {
        "learner": word,
        "history": [{"item": word, "skills": [word], "correct": 1}],
        "candidates": [{"item": word, "skills": [word]}],
    }
    told = endured(ask("POST", "v1/predict", body))
    assert told.status_code == 200, told.text
    assert told.json()["predictions"][0]["item"] == word
    assert told.headers["x-lyceum-version"] == "7"
    endured(ask("POST", f"v1/{quote(word)}", body))
    endured(ask("POST", f"v1/predict?{httpx.QueryParams({'explain': word})}", body))


EDGES = [
    0,
    1,
    0.5,
    -0.0,
    1e-308,
    5e-324,
    1e308,
    -1e308,
    2**53,
    2**63,
    2**64 - 1,
    -1,
    True,
    None,
    "1",
]


@pytest.mark.parametrize("field", ["correct", "time", "now"])
@pytest.mark.parametrize("value", EDGES, ids=str)
def test_numbers_at_the_edge_are_answered_or_refused(ask: Ask, field: str, value: Any) -> None:
    first = answer(0) | ({field: value} if field != "now" else {})
    body = {"history": [first], "candidates": [question(1)]}
    if field == "now":
        body["time"] = value
    for route in ("v1/predict", "v1/mastery", "v1/next", "v1/state"):
        own = dict(body) if route in {"v1/predict", "v1/next"} else {"history": [first]}
        endured(ask("POST", route, own))


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/xml", "multipart/form-data; boundary=x", "", "a" * 9999],
)
def test_another_content_type_is_told_the_right_one(ask: Ask, kind: str) -> None:
    for route in ROUTES[:5]:
        told = ask("POST", route, {}, **{"content-type": kind})
        assert endured(told).status_code == 415
        assert "application/json" in told.json()["detail"]
    told = ask("POST", "v1/predict", {}, **{"content-type": "Application/JSON; charset=utf-8"})
    assert endured(told).status_code == 422


def test_a_body_that_is_compressed_is_told_to_come_plain(ask: Ask) -> None:
    for route in ROUTES:
        told = ask("POST", route, b"\x1f\x8b", **{"content-encoding": "gzip"})
        assert endured(told).status_code == 415
        assert told.headers["accept-encoding"] == "identity"


def test_who_sends_no_body_is_not_told_that_it_came_late(
    app: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "BODY_S", 0.01)
    monkeypatch.setattr(deadlines, "PERIOD_S", 0.01)
    monkeypatch.setattr(app, "proved_s", -math.inf)

    def slow(*given: Any) -> Any:
        time.sleep(0.2)
        return predict(*given)

    monkeypatch.setattr(batching, "predict", slow)
    with asking(app) as one:
        assert one("GET", "readyz").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(
    app: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "BODY_S", 0.05)
    monkeypatch.setattr(deadlines, "PERIOD_S", 0.01)
    sent: list[dict[str, Any]] = []

    async def never() -> dict[str, Any]:
        if sent:
            raise AssertionError("it was given up")
        await asyncio.sleep(3600)
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": f"/{SERVICE}/v1/predict", "headers": []}
    asyncio.run(asyncio.wait_for(app(scope, never, send), 5))
    assert sent[0]["status"] == 408
    assert "did not arrive" in orjson.loads(sent[1]["body"])["detail"]


def test_who_waits_too_long_is_told_so_and_the_next_is_answered(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*given: Any) -> Any:
        time.sleep(0.5)
        return predict(*given)

    body = {"candidates": [question(0)]}
    with monkeypatch.context() as patched:
        patched.setattr(deadlines, "ANSWER_S", 0.05)
        patched.setattr(deadlines, "PERIOD_S", 0.01)
        patched.setattr(batching, "predict", slow)
        told = ask("POST", "v1/predict", body)
    assert told.status_code == 503
    assert int(told.headers["retry-after"]) >= 1
    assert "no answer within" in told.json()["detail"]
    assert ask("POST", "v1/predict", body).status_code == 200


FIELDS = (
    *("history", "candidates", "item", "skills", "correct", "time", "state", "learner"),
    *("instances", "inputs", "name", "shape", "data", "datatype", "prediction_id"),
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS) | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=JSON_VALUES, route=st.sampled_from(ROUTES))
def test_no_json_breaks_a_handler(ask: Ask, value: Any, route: str) -> None:
    endured(ask("POST", route, orjson.dumps(value)))
    endured(ask("POST", route, orjson.dumps({"instances": [value]})))
