"""What a request becomes: the very history that a table would give, or a refusal with its place."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ray_jobs.families.knowledge.api import VERBS, golden
from ray_jobs.families.knowledge.batch import Asked, History, examples
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.predictor import predict
from tests.knowledge_parts import ITEMS, SKILLS, VOCABULARY, arbitrary, asked

item = st.sampled_from([*ITEMS, "strange", "odd"])
skills = st.lists(st.sampled_from([*SKILLS, "new", "unheard of"]), max_size=4)
question = st.fixed_dictionaries({"item": item, "skills": skills})


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Predict requests with times that never fall, where there are any."""
    history, now = [], 0.0
    for _ in range(draw(st.integers(0, 6))):
        answer = {**draw(question), "correct": draw(st.sampled_from([0.0, 0.25, 1.0]))}
        if draw(st.booleans()):
            now += draw(st.integers(0, 10**5))
            answer["time"] = now
        history.append(answer)
    body: dict[str, Any] = {"history": history}
    if draw(st.booleans()):
        body["time"] = now + draw(st.integers(0, 10**6))
    return {**body, "candidates": draw(st.lists(question, min_size=1, max_size=3))}


def table_of(body: dict[str, Any]) -> pl.DataFrame:
    """The request as a clean table would hold it: a learner for each candidate, asked last."""
    rows = []
    for number, candidate in enumerate(body["candidates"]):
        last = {**candidate, "correct": 0.0, "time": body.get("time"), "scored": True}
        for answer in [*body["history"], last]:
            names = sorted(set(answer["skills"]))
            rows.append({"scored": False, **answer, "skills": names, "learner": str(number)})
    return pl.DataFrame(rows, schema={n: CLEAN[n] for n in CLEAN if n in rows[0] or n == "time"})


@settings(max_examples=40, deadline=None)
@given(requests())
def test_a_request_becomes_the_histories_that_its_table_would_give(body: dict[str, Any]) -> None:
    verb = VERBS["predict"]
    (made,) = verb.examples(verb.request.model_validate(body), VOCABULARY)
    assert isinstance(made, Asked)
    answers, expected = len(body["history"]), examples(table_of(body), VOCABULARY)
    assert len(made.items) == len(expected) == len(body["candidates"])
    for number, other in enumerate(expected):
        tags = int(other.skill_counts[:answers].sum())
        for field in fields(History):
            until = tags if field.name == "skills" else answers
            ours, theirs = getattr(made.history, field.name), getattr(other, field.name)[:until]
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
            assert ours.dtype == theirs.dtype, field.name
        before = int(made.skill_counts[:number].sum())
        size = int(made.skill_counts[number])
        assert made.items[number] == other.items[-1]
        assert made.skills[before : before + size].tolist() == other.skills[tags:].tolist()
        np.testing.assert_equal(made.now, other.times[-1])


@pytest.mark.parametrize("name", sorted(SPECS))
@settings(max_examples=40, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3))
def test_what_is_asked_after_a_history_is_answered_as_its_next_step(
    name: str, bodies: list[dict[str, Any]]
) -> None:
    verb, model = VERBS["predict"], arbitrary(name)
    asked_together = [
        example
        for body in bodies
        for example in verb.examples(verb.request.model_validate(body), VOCABULARY)
    ]
    alone = [predict(model, examples(table_of(body), VOCABULARY)) for body in bodies]
    for told, steps in zip(predict(model, asked_together), alone, strict=True):
        np.testing.assert_allclose(told, np.concatenate(steps), atol=1e-5)


@pytest.mark.parametrize("name", sorted(SPECS))
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 7, 8, 9, 12, 30])
def test_a_history_of_any_length_is_asked_as_its_next_step(name: str, length: int) -> None:
    # The blocks of attention are four steps long here.
    random = np.random.default_rng(length)
    history = [
        {
            "item": str(random.choice(ITEMS)),
            "skills": [str(s) for s in random.choice(SKILLS, 2)],
            "correct": float(random.integers(2)),
            "time": 3600.0 * n,
        }
        for n in range(length)
    ]
    candidates = [{"item": item, "skills": ["add"]} for item in ("i1", "i5", "strange")]
    now = 3600.0 * length + 50
    body: dict[str, Any] = {"history": history, "candidates": candidates, "time": now}
    steps = predict(arbitrary(name), examples(table_of(body), VOCABULARY))
    told = np.array(asked(arbitrary(name), **body))
    np.testing.assert_allclose(told, np.concatenate(steps), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(requests())
def test_mastery_is_the_chance_at_an_item_nobody_knows(body: dict[str, Any]) -> None:
    past = {k: v for k, v in body.items() if k != "candidates"}
    unknown = [{"item": "never met", "skills": [s]} for s in (*SKILLS, "new")]
    chances = asked(arbitrary(), candidates=unknown, **past)
    levels = asked(arbitrary(), "mastery", skills=[*SKILLS, "new"], **past)[: len(chances)]
    np.testing.assert_allclose(levels, chances, atol=1e-6)


def mastery(**body: Any) -> list[tuple[str, int]]:
    """The skills of an answer about mastery, with how often each was practised."""
    verb = VERBS["mastery"]
    request = verb.request.model_validate(body)
    outcomes = [
        np.full(len(example.items), 0.25, np.float32)
        for example in verb.examples(request, VOCABULARY)
    ]
    told = verb.answer(request, outcomes, VOCABULARY)["mastery"]
    assert all(m["level"] == 0.25 for m in told)
    return [(m["skill"], m["answers"]) for m in told]


def test_mastery_is_told_of_practised_skills_in_their_order_or_of_those_asked_for() -> None:
    history = [
        {"item": "i1", "skills": ["sub", "add", "sub"], "correct": 1},
        {"item": "i2", "skills": [], "correct": 1},
        {"item": "i3", "skills": ["new", "add"], "correct": 0},
    ]
    assert mastery(history=history) == [("sub", 1), ("add", 2), ("new", 1)]
    asked_for = ["mul", "add", "mul"]
    assert mastery(history=history, skills=asked_for) == [("mul", 0), ("add", 2)]
    assert mastery(history=[]) == []
    with pytest.raises(ValidationError, match="at least 1 item"):
        mastery(history=history, skills=[])


@given(st.lists(st.none() | st.integers(0, 5).map(float), max_size=8))
def test_times_that_run_backwards_are_refused_at_the_first_that_does(
    times: list[float | None],
) -> None:
    history = [{"item": "a", "correct": 1, **({} if t is None else {"time": t})} for t in times]
    body = {"history": history, "candidates": [{"item": "b"}]}
    known = [(n, t) for n, t in enumerate(times) if t is not None]
    wrong = [n for (_, t), (n, later) in pairwise(known) if later < t]
    if not wrong:
        assert VERBS["predict"].request.model_validate(body)
        return
    with pytest.raises(ValidationError) as caught:
        VERBS["predict"].request.model_validate(body)
    (error,) = caught.value.errors()
    assert error["loc"] == ("history",)
    assert error["msg"].endswith(
        f"answer {wrong[0]} is from before the one it follows; expected oldest first"
    )


@given(st.lists(st.none() | st.integers(0, 9).map(float), max_size=5), st.integers(0, 9))
def test_a_question_from_before_the_last_known_time_is_refused_with_both(
    times: list[float | None], now: int
) -> None:
    steps = [t if t is None else float(n * 10 + t) for n, t in enumerate(times)]
    last = max((t for t in steps if t is not None), default=0.0)
    history = [{"item": "a", "correct": 1, "time": t} for t in steps]
    for time in (last, last + now):
        assert VERBS["mastery"].request.model_validate({"history": history, "time": time})
    if last > 0:
        early = max(last - 1 - now, 0.0)
        with pytest.raises(ValidationError) as caught:
            VERBS["mastery"].request.model_validate({"history": history, "time": early})
        (error,) = caught.value.errors()
        assert error["loc"] == ("time",)
        told = f"{early:.0f} is before the last answer of the history ({last:.0f})"
        assert error["msg"].endswith(told)


def school(lengths: dict[str, int], *, timed: bool) -> pl.DataFrame:
    """Learners with that many answers each, every answer to an item of its own."""
    rows = [
        {
            "learner": name,
            "item": f"{name} {n}",
            "skills": ["add"] * (n % 2),
            "correct": float(n % 2),
            "time": float(n) if timed else None,
        }
        for name, length in lengths.items()
        for n in range(length)
    ]
    return pl.DataFrame(rows, schema={name: CLEAN[name] for name in rows[0]})


@pytest.mark.parametrize("timed", [True, False])
def test_golden_requests_are_of_somebody_new_a_beginner_and_short_to_long_histories(
    timed: bool,
) -> None:
    table = school({"long": 300, "short": 2, "middle": 30, "other": 31, "last": 299}, timed=timed)
    found = golden(table, Vocabulary.of([table]))
    assert [len(body["history"]) for body in found] == [0, 3, 1, 30, 199]
    asked_for = [body["candidates"][0]["item"] for body in found]
    assert asked_for == ["long 3", "long 3", "short 1", "other 30", "long 199"]
    assert [body["candidates"][0]["skills"] for body in found] == [["add"]] * 3 + [[]] + [["add"]]
    for body in found:
        items = [answer["item"] for answer in body["history"]]
        assert not set(items) & {candidate["item"] for candidate in body["candidates"]}
        assert all(("time" in answer) == timed for answer in body["history"])
        assert [answer["correct"] for answer in body["history"]] == [
            float(n % 2) for n in range(len(items))
        ]


def test_golden_requests_exist_where_one_learner_gave_one_answer() -> None:
    table = school({"only": 1}, timed=True)
    request = {"history": [], "candidates": [{"item": "only 0", "skills": []}]}
    assert golden(table, Vocabulary.of([table])) == [request] * 5


def test_an_unknown_time_of_asking_is_right_after_the_last_answer() -> None:
    past = [{"item": "i1", "skills": ["add"], "correct": 1, "time": 50_000.0}]
    candidates = [{"item": "i2", "skills": ["add"]}]
    at_once, never_said, later = (
        asked(arbitrary(), history=past, candidates=candidates, time=time)[0]
        for time in (50_000.0, None, 5_000_000.0)
    )
    assert at_once == never_said
    assert not math.isclose(later, at_once, abs_tol=1e-4)
