"""A token instead of a history, over HTTP: the same answers, for its own version alone."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from ray_jobs.families.knowledge import remembered
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.remembered import Remembered
from ray_jobs.families.knowledge.tallies import FAST, SLOW, TALLIED
from ray_jobs.predictor import predict
from ray_jobs.privacy import Key
from ray_jobs.serving import answering, openapi
from ray_jobs.serving.release import Release
from ray_jobs.serving.surface import Surface
from tests.knowledge_parts import ITEMS, SKILLS, arbitrary

pytestmark = pytest.mark.usefixtures("one_thread")

KEY = Key(bytes(range(32)))
DAY_S = 86_400.0
Ask = Callable[..., httpx.Response]
each_spec = pytest.mark.parametrize("name", sorted(SPECS))


def surface(
    name: str, *, version: str = "7", service: str = "algebra", digest: str = "", key: Key = KEY
) -> Surface:
    model = arbitrary(name)
    release = Release(
        service=service,
        family="knowledge",
        lineage="1f" * 16,
        artifact="somewhere",
        digest=digest,
        golden=[],
        card={},
        version=version,
    )
    return Surface(model, release, key, "here")


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Ask a surface as a client would."""
    with asyncio.Runner() as runner:

        def one(app: Surface, verb: str, body: Any) -> httpx.Response:
            async def asked() -> httpx.Response:
                transport: Any = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://school/here/"
                ) as http:
                    return await http.post(verb, content=orjson.dumps(body))

            return runner.run(asked())

        yield one


def answer(i: int) -> dict[str, Any]:
    skills = [[SKILLS[i % 3]], [SKILLS[i % 3], "never heard of"], []][i % 5 % 3]
    item = "never seen" if i % 7 == 6 else ITEMS[i % 5]
    return {"item": item, "skills": skills, "correct": i % 3 % 2, "time": 1e9 + i * DAY_S / 3}


PAST = [answer(i) for i in range(37)]
CANDIDATES = [{"item": item, "skills": [skill]} for item in ITEMS[:2] for skill in SKILLS]
ASKED: dict[str, dict[str, Any]] = {
    "v1/predict": {"candidates": CANDIDATES},
    "v1/next": {"candidates": CANDIDATES},
    "v1/mastery": {},
}


def state(ask: Ask, app: Surface, past: list[dict[str, Any]], before: str | None = None) -> str:
    body = {"history": past} | ({"state": before} if before else {})
    told = ask(app, "v1/state", body).raise_for_status().json()
    assert told["version"] == "7"
    assert "prediction_id" not in told
    token: str = told["state"]
    return token


def close(one: Any, other: Any) -> None:
    """The same answer, its numbers to 1e-5."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"prediction_id", "trend"}:
            close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            close(left, right)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1.1e-5)
    elif not (isinstance(one, str) and "expected to rise" in one):  # a number in words
        assert one == other


@each_spec
@pytest.mark.parametrize("verb", sorted(ASKED))
def test_a_state_and_what_followed_is_answered_as_the_whole_history(
    name: str, verb: str, ask: Ask
) -> None:
    app = surface(name)
    token = state(ask, app, PAST[:11])
    token = state(ask, app, PAST[11:30], token)
    later = {"time": 1e9 + 20 * DAY_S, **ASKED[verb]}
    whole = ask(app, verb, {"history": PAST, **later}).raise_for_status().json()
    parts = ask(app, verb, {"state": token, "history": PAST[30:], **later})
    told = parts.raise_for_status().json()
    if verb == "v1/mastery":  # a skill without a name is not remembered by it
        for one in (whole, told):
            one["mastery"] = sorted(one["mastery"], key=lambda of: str(of["skill"]))
            one["mastery"] = [of for of in one["mastery"] if of["skill"] in SKILLS]
        assert len(told["mastery"]) == len(SKILLS)
    close(told, whole)


@each_spec
def test_reasons_are_those_of_the_answers_sent(name: str, ask: Ask) -> None:
    app, rest = surface(name), PAST[30:]
    token = state(ask, app, PAST[:30])
    asked = ASKED["v1/predict"]
    told = ask(app, "v1/predict?explain=true", {"state": token, "history": rest, **asked}).json()
    whole = ask(app, "v1/predict?explain=true", {"history": PAST, **asked}).json()
    effects = {(r["candidate"], r["answer"] - 30): r["effect"] for r in whole["reasons"]}
    common = [r for r in told["reasons"] if (r["candidate"], r["answer"]) in effects]
    assert len(common) >= 6
    for one in common:
        assert one["effect"] == pytest.approx(effects[one["candidate"], one["answer"]], abs=2e-5)
        assert one["item"] == rest[one["answer"]]["item"]


def test_a_token_alone_is_a_learner_and_none_is_somebody_new(ask: Ask) -> None:
    app, asked = surface("lstm"), ASKED["v1/predict"]
    token = state(ask, app, PAST)
    known = ask(app, "v1/predict", {"state": token, **asked}).json()["predictions"]
    close(known, ask(app, "v1/predict", {"history": PAST, **asked}).json()["predictions"])
    new = ask(app, "v1/predict", asked).json()["predictions"]
    close(
        ask(app, "v1/predict", {"state": state(ask, app, []), **asked}).json()["predictions"], new
    )
    assert known != new


def test_instances_may_bring_states_or_not(ask: Ask) -> None:
    app, asked = surface("blend"), ASKED["v1/predict"]
    token = state(ask, app, PAST[:30])
    bodies = [
        {"state": token, "history": PAST[30:], **asked},
        {"history": PAST, **asked},
        asked,
    ]
    one, other, new = ask(app, "v1/predict", {"instances": bodies}).json()["answers"]
    close(one, other)
    close(new["predictions"], ask(app, "v1/predict", asked).json()["predictions"])
    assert new["predictions"] != other["predictions"]


@pytest.mark.parametrize("name", ["logistic", "lstm", "attention", "blend"])
def test_a_token_grows_with_what_was_met_and_not_with_how_often(name: str, ask: Ask) -> None:
    app = surface(name)
    token = state(ask, app, [answer(i) for i in range(100)])
    longer = state(ask, app, [answer(i) for i in range(100, 2000)], token)
    assert len(longer) < 1.2 * len(token)


# What is refused.


def refusal(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    (error,) = response.json()["errors"]
    assert error["pointer"].endswith("/state")
    return f"{error['detail']}"


def test_a_state_of_another_version_is_a_conflict_with_the_way_out(ask: Ask) -> None:
    token = state(ask, surface("lstm"), PAST)
    body = {"state": token, **ASKED["v1/predict"]}
    told = refusal(ask(surface("lstm", version="8"), "v1/predict", body), 409)
    assert told == (
        "made by version 7 of algebra, and this is version 8 of algebra; send the history "
        "instead, or get a new state for it from v1/state"
    )
    other = surface("lstm", digest="f0" * 16)  # of another registry under the same key
    assert "another version 7 of algebra" in refusal(ask(other, "v1/predict", body), 409)
    other = surface("lstm", service="biology")
    assert "version 7 of algebra" in refusal(ask(other, "v1/predict", body), 409)
    many = ask(
        surface("lstm", version="8"), "v1/predict", {"instances": [ASKED["v1/predict"], body]}
    )
    assert many.json()["errors"][0]["pointer"] == "/instances/1/state"


@pytest.mark.parametrize(
    "spoilt",
    [
        "{about}.{less}",
        "{about}.{closed}AAAA",
        "{about}.AAAA{closed}",
        "{about}.",
        "{about}",
        "",
        "?",
        "a.b.c",
        "é.é",
        "W10.{closed}",  # []
        "bnVsbA.{closed}",  # null
        "NQ.{closed}",  # 5
        "eyJhIjoxLCJiIjoyfQ.{closed}",  # {"a":1,"b":2}
        f"{base64.b64encode(b'[' * 900 + b']' * 900).decode()}.AAAA",
    ],
)
def test_what_v1_state_did_not_give_is_refused(spoilt: str, ask: Ask) -> None:
    app = surface("lstm")
    about, _, closed = state(ask, app, PAST).partition(".")
    token = spoilt.format(about=about, closed=closed, less=closed[:-8])
    body = {"state": token, **ASKED["v1/predict"]}
    response = ask(app, "v1/predict", body)
    assert response.status_code in {409, 422}
    assert "v1/state" in refusal(response, response.status_code)


@pytest.mark.parametrize("value", [5, [], {"carried": None}, True])
def test_what_is_no_text_is_refused(value: Any, ask: Ask) -> None:
    app = surface("lstm")
    assert "v1/state" in refusal(
        ask(app, "v1/predict", {"state": value, **ASKED["v1/predict"]}), 422
    )


def test_another_installation_cannot_read_it(ask: Ask) -> None:
    token = state(ask, surface("lstm"), PAST)
    other = surface("lstm", key=Key(bytes(32)))
    body = {"state": token, **ASKED["v1/predict"]}
    assert "another key" in refusal(ask(other, "v1/predict", body), 422)


def test_a_time_once_known_is_not_forgotten_for_an_answer_without_one(ask: Ask) -> None:
    app = surface("lstm")
    untimed = {key: value for key, value in answer(5).items() if key != "time"}
    past = [*PAST[:5], untimed]
    token = state(ask, app, past)
    whole, told = (
        {of["skill"]: of for of in ask(app, "v1/mastery", body).json()["mastery"]}
        for body in ({"history": past}, {"state": token})
    )
    for skill in SKILLS:
        assert told[skill]["last"] == pytest.approx(whole[skill]["last"])
    early = ask(app, "v1/predict", {"state": token, "time": 1e9, **ASKED["v1/predict"]})
    assert early.status_code == 422


@pytest.mark.parametrize("unit", [1, 1e3, 1e6])
def test_the_moment_of_the_last_answer_is_no_past_in_any_unit(unit: float, ask: Ask) -> None:
    app, now = surface("lstm"), 1_790_000_000.123 * unit
    token = state(ask, app, [{**answer(0), "time": now}])
    body = {"state": token, "history": [{**answer(1), "time": now}], "time": now}
    ask(app, "v1/predict", {**body, **ASKED["v1/predict"]}).raise_for_status()


def test_instances_are_counted_before_the_next_one_is_opened(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = surface("rasch")  # which is told all again
    body = {"state": state(ask, app, PAST), **ASKED["v1/predict"]}
    opened: list[bytes] = []
    decoded = Remembered.decoded

    def spied(data: bytes) -> Remembered:
        opened.append(data)
        return decoded(data)

    monkeypatch.setattr(Remembered, "decoded", spied)
    monkeypatch.setattr(answering, "MAX_COST", 100)
    assert ask(app, "v1/predict", {"instances": [body] * 50}).status_code == 413
    assert len(opened) == 3


def test_what_tokens_hold_goes_with_the_number_of_their_layout() -> None:
    """Whoever changes one of these raises FORMAT: tokens outlive the code of a version."""
    assert (remembered.FORMAT, TALLIED, FAST, SLOW) == (
        1,
        ("given", "wins", "fast", "slow", "last", "hours", "step", "latest"),
        0.6,
        0.9,
    )


def test_a_token_of_another_layout_is_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    token = state(ask, surface("lstm"), PAST)
    monkeypatch.setattr(remembered, "FORMAT", 2)
    body = {"state": token, **ASKED["v1/predict"]}
    assert "another release" in refusal(ask(surface("lstm"), "v1/predict", body), 422)


def test_an_answer_from_before_the_state_is_refused(ask: Ask) -> None:
    app = surface("lstm")
    token = state(ask, app, PAST)
    for body, pointer in (
        ({"history": [answer(0)]}, "/history"),
        ({"time": 1e9}, "/time"),
    ):
        response = ask(app, "v1/predict", {"state": token, **body, **ASKED["v1/predict"]})
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == pointer
        assert "of the state" in response.json()["detail"]
    same = {"history": [answer(36)], "time": PAST[-1]["time"]}
    ask(app, "v1/predict", {"state": token, **same, **ASKED["v1/predict"]}).raise_for_status()


def test_the_document_tells_of_states_and_of_the_conflict() -> None:
    app = surface("lstm")
    document = openapi.document(app.release, app.verbs, app.prefix, {"name": "m", "inputs": []})
    posts = {
        path: methods["post"] for path, methods in document["paths"].items() if "post" in methods
    }
    verbs = {"/v1/predict", "/v1/mastery", "/v1/next", "/v1/state"}
    assert set(posts) == {*verbs, "/v1/feedback", "/v2/models/m/infer"}
    assert {path for path, post in posts.items() if "409" in post["responses"]} == verbs
    schema = document["components"]["schemas"]["PredictRequest"]["properties"]["state"]
    assert schema["type"] == "string"


@each_spec
def test_what_is_remembered_survives_its_way_to_bytes(name: str, ask: Ask) -> None:
    app = surface(name)
    verb = app.verbs["state"]
    request = verb.request.model_validate({"history": PAST})
    (example,) = verb.examples(request, app.model.vocabulary)
    told = verb.answer(request, predict(app.model, [example]), app.model.vocabulary)
    found = Remembered.decoded(told["state"])
    assert told["answers"] == found.tallies.steps == len(PAST)
    assert Remembered.decoded(found.encoded()).encoded() == found.encoded()
    assert found.latest == pytest.approx(PAST[-1]["time"])
    assert set(found.skills) == set(SKILLS)
    assert found.skills[SKILLS[0]].answers == sum(SKILLS[0] in a["skills"] for a in PAST)
