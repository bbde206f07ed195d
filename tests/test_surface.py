"""What a client may count on, whatever it sends: the HTTP surface, without Ray."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.artifact import Artifact
from ray_jobs.errors import ContractError, ServiceError
from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.families.knowledge.asking import MAX_CANDIDATES
from ray_jobs.predictor import predict
from ray_jobs.privacy import Key
from ray_jobs.serving import batching, receipt, surface
from ray_jobs.serving.batching import Batcher
from ray_jobs.serving.feedback import Recorder
from ray_jobs.serving.release import Release, verify
from ray_jobs.serving.surface import House, Surface
from tests.surface_parts import (
    ITEMS,
    KEY,
    SERVICE,
    SKILLS,
    Ask,
    answer,
    asking,
    client,
    past,
    question,
    released,
    request,
)  # fmt: skip


@pytest.fixture(scope="module")
def release(model: Artifact) -> Release:
    return released(model)


@pytest.fixture(scope="module")
def app(model: Artifact, release: Release, tmp_path_factory: pytest.TempPathFactory) -> Surface:
    recorder = Recorder(str(tmp_path_factory.mktemp("store")), release.service)
    return Surface(model, release, KEY, house=House(recorder=recorder))


@pytest.fixture(scope="module")
def ask(app: Surface) -> Iterator[Ask]:
    with asking(app) as one:
        yield one


def probabilities(body: dict[str, Any]) -> list[float]:
    return [p["probability"] for p in body["predictions"]]


# What is answered.


def test_the_service_says_what_the_predictor_says(ask: Ask, model: Artifact) -> None:
    body = request(30, candidates=5)
    told = probabilities(ask("POST", "v1/predict", body).json())
    verb = VERBS["predict"]
    examples = verb.examples(verb.request.model_validate(body), model.vocabulary)
    known = np.concatenate(predict(model, examples))
    np.testing.assert_allclose(told, known, atol=1e-6)
    assert len(set(told)) == 5, "candidates are told apart"


def test_every_answer_says_which_model_gave_it(ask: Ask, release: Release) -> None:
    for path, body in [("v1/predict", request()), ("v1/mastery", {"history": past(3)})]:
        told = ask("POST", path, body)
        assert told.status_code == 200
        assert (told.json()["version"], told.json()["lineage"]) == ("7", release.lineage)
    for path in ("healthz", "readyz", "v1/model"):
        told = ask("GET", path)
        assert told.status_code == 200
        assert (told.json()["version"], told.json()["lineage"]) == ("7", release.lineage)


def test_many_at_once_are_answered_like_each_alone(ask: Ask) -> None:
    bodies = [request(n, candidates=1 + n % 3) for n in (0, 1, 7, 50)]
    together = ask("POST", "v1/predict", {"instances": bodies}).json()
    assert together["version"] == "7"
    for body, told in zip(bodies, together["answers"], strict=True):
        alone = ask("POST", "v1/predict", body).json()
        np.testing.assert_allclose(probabilities(told), probabilities(alone), atol=1e-5)


def test_mastery_names_each_skill_once_and_counts_its_practice(ask: Ask) -> None:
    told = ask("POST", "v1/mastery", {"history": past(5)}).json()["mastery"]
    assert [(m["skill"], m["answers"]) for m in told] == [("adding", 3), ("taking away", 2)]
    asked = ["never taught", "adding", "adding"]
    told = ask("POST", "v1/mastery", {"history": past(5), "skills": asked}).json()["mastery"]
    assert [(m["skill"], m["answers"]) for m in told] == [("never taught", 0), ("adding", 3)]
    assert all(0 < m["level"] < 1 for m in told)
    assert ask("POST", "v1/mastery", {}).json()["mastery"] == []


@settings(max_examples=30, deadline=None)
@given(
    history=st.lists(
        st.fixed_dictionaries(
            {
                "item": st.sampled_from([*ITEMS[:3], "nobody's item"]) | st.text(min_size=1),
                "correct": st.floats(0, 1) | st.sampled_from([0, 1, True, False]),
            },
            optional={"skills": st.lists(st.sampled_from([*SKILLS, "unheard of"]), max_size=4)},
        ),
        max_size=8,
    ),
    learner=st.none() | st.text(max_size=20),
)
def test_whoever_and_whatever_was_never_seen_is_served(
    ask: Ask, history: list[dict[str, Any]], learner: str | None
) -> None:
    candidates = [{"item": "new item", "skills": ["new skill"]}, {"item": ITEMS[0]}]
    body = {"learner": learner, "history": history, "candidates": candidates}
    told = ask("POST", "v1/predict", body)
    assert told.status_code == 200, told.text
    assert all(0 < p < 1 for p in probabilities(told.json()))


def test_an_empty_history_is_served(ask: Ask) -> None:
    told = ask("POST", "v1/predict", {"candidates": [question(0)]})
    assert told.status_code == 200
    assert len(told.json()["predictions"]) == 1


# What is refused, and how.


def refused(told: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert told.status_code == status, told.text
    assert told.headers["content-type"] == "application/problem+json"
    problem = told.json()
    assert (problem["status"], problem["title"]) == (status, HTTPStatus(status).phrase)
    assert problem["detail"]
    assert isinstance(problem, dict)
    return problem


@pytest.mark.parametrize("body", [b"", b"{", b"history", b'{"history": NaN}', b"\xff", b"[1e999]"])
def test_what_is_not_json_is_told_so(ask: Ask, body: bytes) -> None:
    assert "not JSON" in refused(ask("POST", "v1/predict", body), 400)["detail"]


WRONG: dict[str, tuple[Any, str]] = {
    "nothing asked": ({"history": []}, "/candidates"),
    "no candidates": ({"candidates": []}, "/candidates"),
    "too many": ({"candidates": [question(0)] * (MAX_CANDIDATES + 1)}, "/candidates"),
    "misspelt": ({"candidates": [question(0)], "histroy": []}, "/histroy"),
    "slash in a name": ({"candidates": [question(0)], "a/b~c": 1}, "/a~1b~0c"),
    "no item": ({"candidates": [{"skills": []}]}, "/candidates/0/item"),
    "item is a number": ({"candidates": [{"item": 5}]}, "/candidates/0/item"),
    "item is empty": ({"candidates": [{"item": ""}]}, "/candidates/0/item"),
    "one skill as text": ({"candidates": [{"item": "a", "skills": "b"}]}, "/candidates/0/skills"),
    "no outcome": ({**request(1), "history": [question(0)]}, "/history/0/correct"),
    "outcome over 1": (
        {**request(1), "history": [answer(0) | {"correct": 2}]},
        "/history/0/correct",
    ),
    "outcome under 0": (
        {**request(1), "history": [answer(0) | {"correct": -1}]},
        "/history/0/correct",
    ),
    "time before 1970": ({**request(1), "history": [answer(0) | {"time": -1}]}, "/history/0/time"),
    "time is text": ({**request(1), "history": [answer(0) | {"time": "noon"}]}, "/history/0/time"),
    "newest first": (
        {**request(1), "history": [answer(0) | {"time": 2}, answer(1) | {"time": 1}]},
        "/history",
    ),
    "history is an object": ({**request(1), "history": {}}, "/history"),
    "not an object": ([1], ""),
    "nothing": (None, ""),
}


@pytest.mark.parametrize(("body", "where"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_told_with_where_and_why(ask: Ask, body: Any, where: str) -> None:
    problem = refused(ask("POST", "v1/predict", orjson.dumps(body)), 422)
    assert problem["errors"][0]["pointer"] == where
    assert problem["errors"][0]["detail"] in problem["detail"]


@pytest.mark.parametrize(("body", "where"), WRONG.values(), ids=WRONG)
def test_among_many_the_wrong_one_is_named_and_none_is_answered(
    ask: Ask, body: Any, where: str
) -> None:
    instances = [request(), request(), request(), body, request()]
    problem = refused(ask("POST", "v1/predict", {"instances": instances}), 422)
    assert problem["errors"][0]["pointer"] == f"/instances/3{where}"


@pytest.mark.parametrize("instances", [[], {}, "all", None])
def test_instances_are_a_list_of_some(ask: Ask, instances: Any) -> None:
    problem = refused(ask("POST", "v1/predict", {"instances": instances}), 422)
    assert problem["errors"][0]["pointer"] == "/instances"


def test_another_method_is_told_the_right_one(ask: Ask) -> None:
    told = ask("GET", "v1/predict")
    assert "POST" in refused(told, 405)["detail"]
    assert told.headers["allow"] == "POST"
    assert ask("DELETE", "v1/model").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["v1/predcit", "v3", "", "v1/", "docs/v1/predict", "healthz2"])
def test_an_unknown_route_is_told_what_there_is(ask: Ask, path: str) -> None:
    detail = refused(ask("POST", path), 404)["detail"]
    for route in ("v1/predict", "v1/mastery", "v1/model", "readyz", "openapi.json"):
        assert route in detail


def test_a_body_over_the_limit_is_refused_before_all_of_it_was_read(app: Surface) -> None:
    read = 0

    async def endless() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 2**20, "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/algebra-practice/v1/predict"}
    asyncio.run(app(scope, endless, send))
    assert sent[0]["status"] == 413
    assert read * 2**20 <= surface.MAX_BODY + 2**20


def test_what_would_keep_the_model_for_minutes_is_refused_at_once(ask: Ask) -> None:
    assert "in parts" in refused(ask("POST", "v1/next", dear()), 413)["detail"]


def dear() -> dict[str, Any]:
    """A request that asks of each candidate what would be after it was answered."""
    return {"history": [{"item": "a", "correct": 1}] * 3000, "candidates": [{"item": "b"}] * 200}


def test_our_own_fault_gives_nothing_away_and_the_next_request_is_answered(
    ask: Ask, app: Surface, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a secret of the model")

    with monkeypatch.context() as patched:
        patched.setattr(batching, "predict", broken)
        told = ask("POST", "v1/predict", request())
    assert "secret" not in told.text
    refused(told, 500)
    assert "a secret of the model" in caplog.text
    assert ask("POST", "v1/predict", request()).status_code == 200


# What is documented.


def document(ask: Ask) -> dict[str, Any]:
    found = ask("GET", "openapi.json").json()
    assert isinstance(found, dict)
    return found


def fits(value: Any, schema: dict[str, Any], openapi: dict[str, Any]) -> None:
    """Raises where a value is not as a schema of the document says."""
    whole = {**schema, "components": openapi["components"]}
    jsonschema.validate(value, whole, cls=jsonschema.Draft202012Validator)


def operations(openapi: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(p, m, o) for p, methods in openapi["paths"].items() for m, o in methods.items()]


def test_the_document_is_openapi_and_hangs_together(ask: Ask) -> None:
    openapi = document(ask)
    assert openapi["openapi"].startswith("3.1.")
    assert openapi["info"] | {"title": "", "version": ""} != {}
    assert set(openapi) <= {"openapi", "info", "servers", "paths", "components"}
    for name, schema in openapi["components"]["schemas"].items():
        assert name.isidentifier()
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [operation["operationId"] for _, _, operation in operations(openapi)]
    assert len(ids) == len(set(ids))
    for path, _, operation in operations(openapi):
        assert path.startswith("/")
        for status, response in operation["responses"].items():
            assert 200 <= int(status) < 600
            assert response["description"]
    for reference in references(openapi):
        assert reference.removeprefix("#/components/schemas/") in openapi["components"]["schemas"]


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from ([part["$ref"]] if "$ref" in part else [])
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from references(each)


def test_every_route_answers_as_its_document_says(ask: Ask) -> None:
    openapi = document(ask)
    for path, method, operation in operations(openapi):
        body = None
        if "requestBody" in operation:
            asked = operation["requestBody"]["content"]["application/json"]
            body = asked["example"]
            fits(body, asked["schema"], openapi)
            many = [] if path.startswith("/v2") else [{"instances": [body, body]}]
            for one in many:
                fits(one, asked["schema"], openapi)
            if path == "/v1/feedback":  # whose example is nobody's id
                body["prediction_id"] = ask("POST", "v1/predict", request()).json()["prediction_id"]
        for sent in [body, *many] if body else [None]:
            told = ask(method.upper(), path.removeprefix("/"), sent)
            assert told.status_code == 200, (path, told.text)
            kind = told.headers["content-type"].split(";")[0]
            schema = operation["responses"]["200"]["content"][kind]["schema"]
            fits(told.text if kind == "text/html" else told.json(), schema, openapi)


def test_refusals_are_documented_too(ask: Ask) -> None:
    openapi = document(ask)
    responses = openapi["paths"]["/v1/next"]["post"]["responses"]
    for body in (b"{", b"{}", orjson.dumps(dear())):
        told = ask("POST", "v1/next", body)
        schema = responses[str(told.status_code)]["content"]["application/problem+json"]["schema"]
        fits(told.json(), schema, openapi)


def test_the_page_shows_every_route_and_loads_nothing_from_elsewhere(ask: Ask) -> None:
    text = ask("GET", "docs").text
    for path in document(ask)["paths"]:
        assert path in text
    assert "http://" not in text.replace("http://school", "")
    assert "https://" not in text


def test_the_model_card_says_what_the_release_says(ask: Ask, release: Release) -> None:
    card = ask("GET", "v1/model").json()
    assert card["service"] == "algebra-practice"
    assert card["digest"] == release.digest
    assert card["metrics"] == {"auc": {"value": 0.8}}
    assert set(card["schema"]) == set(VERBS)


# What a prediction id is worth.


def test_a_prediction_id_says_what_was_predicted_and_not_who_asked(ask: Ask) -> None:
    body = {**request(3, candidates=20), "learner": "Ada Lovelace"}
    told = ask("POST", "v1/predict", body).json()
    note = receipt.verified(KEY, told["prediction_id"])
    assert note.version == "7"
    assert note.learner == KEY.alias("Ada Lovelace")
    np.testing.assert_allclose(note.predictions, probabilities(told)[:16], atol=1e-4)
    assert "Ada" not in repr(note)


@given(place=st.integers(0, 200), character=st.sampled_from("aZ9-_.=~ é"))
def test_a_changed_prediction_id_is_told_from_a_genuine_one(place: int, character: str) -> None:
    note = receipt.made(KEY, service="algebra", version="7", learner="ada", predictions=[0.5, 0.25])
    genuine = receipt.signed(KEY, note.encoded())
    assert receipt.verified(KEY, genuine).predictions == [0.5, 0.25]
    place %= len(genuine)
    changed = genuine[:place] + character + genuine[place + 1 :]
    if changed != genuine:
        with pytest.raises(ContractError, match="not given out here"):
            receipt.verified(KEY, changed)
    for wrong in (genuine[:-1], genuine.split(".")[0], "", ".", "no id"):
        with pytest.raises(ContractError, match="not given out here"):
            receipt.verified(KEY, wrong)
    with pytest.raises(ContractError, match="not given out here"):
        receipt.verified(Key(bytes(32)), genuine)


# Whether it may serve at all.


def test_readiness_is_a_golden_request_answered_now(
    model: Artifact, release: Release, ask: Ask
) -> None:
    wrong = [case | {"outcomes": [[0.123]]} for case in release.golden]
    app = Surface(model, Release(**{**vars(release), "golden": wrong}), KEY)

    async def asked() -> httpx.Response:
        async with client(app) as http:
            return await http.get("readyz")

    assert "away from its known answer" in refused(asyncio.run(asked()), 503)["detail"]
    assert ask("GET", "readyz").json()["status"] == "ready"


def test_whoever_asks_for_readiness_again_and_again_keeps_no_model_busy(
    app: Surface, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(model: Artifact, given: Any) -> Any:
        asked.append(len(given))
        return predict(model, given)

    monkeypatch.setattr(app, "proved_s", -math.inf)
    monkeypatch.setattr(batching, "predict", counted)
    for path in ("readyz", "v2/health/ready", f"v2/models/{SERVICE}/ready", "readyz"):
        assert ask("GET", path).status_code == 200
    assert len(asked) == 1
    monkeypatch.setattr(app, "proved_s", -math.inf)
    assert ask("GET", "readyz").status_code == 200
    assert len(asked) == 2


def test_only_the_model_that_was_evaluated_passes(model: Artifact, release: Release) -> None:
    verify(model, release)
    (first, *rest) = release.golden
    short: list[float] = []
    for outcome in (short, [float("nan")], [first["outcomes"][0][0] + 0.01]):
        changed = [{**first, "outcomes": [outcome]}, *rest]
        with pytest.raises(ServiceError, match=r"golden request 0 .* will not be served"):
            verify(model, Release(**{**vars(release), "golden": changed}))
    with pytest.raises(ServiceError, match="has digest"):
        verify(model, Release(**{**vars(release), "digest": "0" * 64}))
    with pytest.raises(ServiceError, match="without golden requests"):
        verify(model, Release(**{**vars(release), "golden": []}))


# Who goes together.


def together(app: Surface, bodies: list[Any]) -> list[httpx.Response]:
    async def all_at_once() -> list[httpx.Response]:
        async with client(app) as http:
            return await asyncio.gather(*(http.post("v1/predict", json=b) for b in bodies))

    return asyncio.run(all_at_once())


def test_requests_that_come_together_are_answered_like_each_alone(
    model: Artifact, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(model: Artifact, examples: Any) -> Any:
        sizes.append(len(examples))
        return predict(model, examples)

    monkeypatch.setattr(batching, "predict", counted)
    app = Surface(model, release, KEY)
    bodies = [request(n % 17, candidates=1 + n % 4) for n in range(60)]
    crowd = [probabilities(r.json()) for r in together(app, bodies)]
    assert len(sizes) < 60, "some went together"
    alone = [probabilities(together(app, [b])[0].json()) for b in bodies]
    for one, other in zip(crowd, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def held(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[int]]:
    """Hold the model until the event is set; the sizes of what it was given stand in the list."""
    go, sizes = threading.Event(), list[int]()

    def waits(model: Artifact, examples: Any) -> Any:
        assert go.wait(10)
        sizes.append(len(examples))
        return predict(model, examples)

    monkeypatch.setattr(batching, "predict", waits)
    return go, sizes


def examples(model: Artifact, n: int, candidates: int = 1) -> list[Any]:
    verb = VERBS["predict"]
    return verb.examples(verb.request.model_validate(request(n, candidates)), model.vocabulary)


def run_with(model: Artifact, story: Callable[[Batcher], Awaitable[None]], **how: Any) -> None:
    async def told() -> None:
        await story(Batcher(model, **how))

    asyncio.run(told())


def test_a_client_that_leaves_takes_nobody_along(
    model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(batcher: Batcher) -> None:
        go, sizes = held(batcher, monkeypatch)
        first = asyncio.create_task(batcher.outcomes(examples(model, 1)))
        await asyncio.sleep(0.05)
        leaver, stayer = (asyncio.create_task(batcher.outcomes(examples(model, n))) for n in (2, 3))
        await asyncio.sleep(0.05)
        for gone in (first, leaver):
            gone.cancel()
        go.set()
        (outcome,) = await stayer
        assert 0 < float(outcome[0]) < 1
        assert sizes == [1, 1], "what nobody waits for is not computed, once it is not under way"

    run_with(model, story)


def test_a_batch_that_fails_fails_alone(model: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(batcher: Batcher) -> None:
        def fails_for_two(model: Artifact, given: Any) -> Any:
            if len(given) == 2:
                raise RuntimeError("out of memory")
            return predict(model, given)

        monkeypatch.setattr(batching, "predict", fails_for_two)
        before = asyncio.create_task(batcher.outcomes(examples(model, 1)))
        await asyncio.sleep(0.01)  # it is under way, or back
        doomed = [asyncio.create_task(batcher.outcomes(examples(model, n))) for n in (1, 2)]
        for one in doomed:
            with pytest.raises(RuntimeError, match="out of memory"):
                await one
        assert len(await before) == 1
        assert len(await batcher.outcomes(examples(model, 4))) == 1

    run_with(model, story)


def test_a_huge_request_does_not_hold_up_a_small_one(
    model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(batcher: Batcher) -> None:
        go, sizes = held(batcher, monkeypatch)
        huge = asyncio.create_task(batcher.outcomes(examples(model, 9) * 100))
        await asyncio.sleep(0.05)
        small = asyncio.create_task(batcher.outcomes(examples(model, 9)))
        await asyncio.sleep(0.05)
        go.set()
        await small
        assert not huge.done()
        assert len(await huge) == 100
        assert max(sizes) <= 10, "no batch is dearer than allowed"

    run_with(model, story, batch_cost=100)


def test_nothing_asked_is_nothing_answered(model: Artifact) -> None:
    async def story(batcher: Batcher) -> None:
        assert await batcher.outcomes([]) == []

    run_with(model, story)


def test_a_question_has_its_time_and_never_lies_before_the_last_answer(ask: Ask) -> None:
    body = {**request(), "history": [{**answer(0), "time": 1_000_000.0}]}
    now = ask("POST", "v1/predict", {**body, "time": 1_000_000.0}).json()
    assert now["predictions"] == ask("POST", "v1/predict", body).json()["predictions"]
    before = ask("POST", "v1/predict", {**body, "time": 999_999.0})
    assert before.status_code == 422
    assert before.json()["errors"][0]["pointer"] == "/time"
