"""What mastery tells beside a level, and what is worth practising next."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ray_jobs.families.knowledge.api import VERBS, PredictRequest
from ray_jobs.families.knowledge.asking import Past
from ray_jobs.families.knowledge.mastery import RECENT, interval
from ray_jobs.predictor import predict
from tests.knowledge_parts import SKILLS, VOCABULARY, arbitrary, asked
from tests.test_knowledge_api import question, requests
from tests.test_knowledge_reasons import past

pytestmark = pytest.mark.usefixtures("one_thread")


def told(verb: str, outcomes: list[float] | None = None, **body: Any) -> list[dict[str, Any]]:
    """An answer of a model that is arbitrary, or that says what is given."""
    one = VERBS[verb]
    request = one.request.model_validate(body)
    examples = one.examples(request, VOCABULARY)
    if outcomes is None:
        said = predict(arbitrary(), examples)
    else:
        sizes = [len(example.items) for example in examples]
        assert len(outcomes) == sum(sizes)
        said = np.split(np.array(outcomes, np.float32), np.cumsum(sizes)[:-1])
    (answer,) = one.answer(request, said, VOCABULARY).values()
    assert isinstance(answer, list)
    one.response.model_validate({"mastery": answer, "recommendations": answer})
    return answer


# The past.


@settings(max_examples=40, deadline=None)
@given(requests(), st.data())
def test_a_past_is_cut_told_without_an_answer_or_with_one_more_as_a_client_would(
    body: dict[str, Any], data: st.DataObject
) -> None:
    history = body["history"]

    def of(changed: list[dict[str, Any]], **more: Any) -> Past:
        whole = {**body, "history": changed, **more}
        return Past.of(PredictRequest.model_validate(whole), VOCABULARY)

    def same(one: Past, other: Past) -> None:
        for name in ("items", "skills", "skill_counts", "correct", "times", "now"):
            ours, theirs = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            assert ours.dtype == theirs.dtype, name

    whole, new = of(history), dict(data.draw(question))
    item, skills = VOCABULARY.item(str(new["item"])), VOCABULARY.skill_set(new["skills"])
    given_now = {**new, "correct": 0.25}
    if "time" in body:
        given_now["time"] = body["time"]
    same(whole.then((item, skills), 0.25), of([*history, given_now]))
    if history:
        at = data.draw(st.integers(0, len(history) - 1))
        same(whole.without(at), of(history[:at] + history[at + 1 :]))
        same(whole.until(at), of(history[:at], time=history[at].get("time")))


# Mastery.


def test_a_trend_is_how_far_a_level_rose_since_before_the_last_answers() -> None:
    history = past(30)
    practised = [n for n, answer in enumerate(history) if "add" in answer["skills"]]
    turn = practised[-RECENT]
    assert 0 < turn < practised[-1]
    (found,) = told("mastery", history=history, skills=["add"])
    level = asked(arbitrary(), "mastery", history=history, skills=["add"])[0]
    then = {"history": history[:turn], "time": history[turn]["time"], "skills": ["add"]}
    before = asked(arbitrary(), "mastery", **then)[0]
    assert found["level"] == pytest.approx(level, abs=1e-6)
    assert found["trend"] == pytest.approx(level - before, abs=2e-6)
    assert abs(found["trend"]) > 1e-4


def test_an_interval_is_told_by_what_a_right_and_a_wrong_answer_would_change() -> None:
    history = past(30)
    found = told("mastery", history=history, skills=list(SKILLS), intervals=True)
    expected = []
    for skill, one in zip(SKILLS, found, strict=True):
        typical = {"item": "never seen", "skills": [skill]}
        right, wrong = (
            asked(
                arbitrary(),
                "mastery",
                history=[*history, {**typical, "correct": correct}],
                skills=[skill],
            )[0]
            for correct in (1, 0)
        )
        expected.append(interval(one["level"], right, wrong))
    assert [one["interval"] is None for one in found] == [range_ is None for range_ in expected]
    known = [(a["interval"], b) for a, b in zip(found, expected, strict=True) if b]
    assert known, "of this model some have none"
    for own, other in known:
        assert own == pytest.approx(other, abs=1e-3)


def test_an_interval_that_is_not_asked_for_is_not_read_for() -> None:
    body: dict[str, Any] = {"history": past(30), "skills": list(SKILLS)}
    request = VERBS["mastery"].request.model_validate(body)
    more = VERBS["mastery"].request.model_validate({**body, "intervals": True})
    assert len(VERBS["mastery"].examples(more, VOCABULARY)) - len(
        VERBS["mastery"].examples(request, VOCABULARY)
    ) == 2 * len(SKILLS)
    usual = told("mastery", **body)
    assert told("mastery", **body, intervals=True) != usual
    assert [one["interval"] for one in usual] == [None] * len(SKILLS)
    asked(arbitrary(), "mastery", **body, intervals=True)  # and its cost is told rightly


@given(
    right=st.floats(0.5, 200.0), wrong=st.floats(0.5, 200.0)
)  # answers of a skill that is never learnt
def test_of_who_learns_nothing_the_interval_is_that_of_a_beta_distribution(
    right: float, wrong: float
) -> None:
    answers = right + wrong
    level = right / answers
    found = interval(level, (right + 1) / (answers + 1), right / (answers + 1))
    assert found is not None
    assert found["low"] < level < found["high"]
    low, high = (math.log(x / (1 - x)) for x in (found["low"], found["high"]))
    deviation = (high - low) / (2 * 1.96) * level * (1 - level)
    variance = level * (1 - level) / (answers + 1)
    assert deviation == pytest.approx(math.sqrt(variance), rel=0.01)


@pytest.mark.parametrize("told", [(0.5, 0.4, 0.6), (0.5, 0.5, 0.5), (1.0, 1.0, 0.9)])
def test_where_answers_tell_nothing_there_is_no_interval(told: tuple[float, float, float]) -> None:
    assert interval(*told) is None


def test_a_level_next_to_certain_keeps_an_interval_within_bounds() -> None:
    found = interval(1 - 1e-9, 1.0, 0.0)
    assert found is not None
    assert 0 <= found["low"] <= found["high"] <= 1


def test_the_evidence_of_a_level_is_what_practised_the_skill() -> None:
    history = [
        {"item": "i1", "skills": ["add", "add"], "correct": 1, "time": 50.0},
        {"item": "i2", "skills": ["sub"], "correct": 0},
        {"item": "i3", "skills": ["add", "sub"], "correct": 0.25},
    ]
    add, sub, mul = told("mastery", history=history, skills=["add", "sub", "mul"])
    assert (add["answers"], add["correct"], add["last"]) == (2, 1.25, 50.0)
    assert (sub["answers"], sub["correct"], sub["last"]) == (2, 0.25, None)
    assert (mul["answers"], mul["correct"], mul["last"], mul["trend"]) == (0, 0, None, None)


# What is next. Outcomes: each candidate, each skill now; of each, its skills after right, wrong.

ADD, SUB, MUL = ({"item": f"of {skill}", "skills": [skill]} for skill in SKILLS)


def order(*outcomes: float, candidates: list[dict[str, Any]], **more: Any) -> list[str]:
    recommended = told("next", list(outcomes), candidates=candidates, **more)
    return [one["item"] for one in recommended]


def test_what_raises_mastery_most_comes_first() -> None:
    outcomes = [0.6, 0.6, 0.4, 0.4, 0.45, 0.4, 0.6, 0.5]
    assert order(*outcomes, candidates=[ADD, SUB]) == ["of sub", "of add"]
    (best, _) = told("next", outcomes, candidates=[ADD, SUB])
    assert best["gain"] == pytest.approx(0.6 * 0.6 + 0.4 * 0.5 - 0.4, abs=1e-6)
    assert best["reasons"] == [
        "neither too hard nor too easy: 0.60 to be right, the zone is 0.5 to 0.85",
        "sub is expected to rise from 0.40 by 0.160",
    ]


@pytest.mark.parametrize(("chance", "word"), [(0.15, "harder"), (0.97, "easier")])
def test_what_is_far_too_hard_or_too_easy_waits(chance: float, word: str) -> None:
    outcomes = [0.6, chance, 0.4, 0.4, 0.45, 0.4, 0.5, 0.45]
    assert order(*outcomes, candidates=[ADD, SUB]) == ["of add", "of sub"]
    (_, waits) = told("next", outcomes, candidates=[ADD, SUB])
    assert waits["reasons"][0].startswith(word)
    lowest = {"zone": (0.1, 0.99)}
    assert order(*outcomes, candidates=[ADD, SUB], **lowest) == ["of sub", "of add"]


def test_a_skill_that_is_covered_lets_another_go_first() -> None:
    twin = {**ADD, "item": "again of add"}
    outcomes = [0.6, 0.6, 0.6, 0.4, 0.4, 0.6, 0.5, 0.58, 0.5, 0.55, 0.45]
    candidates = [ADD, twin, SUB]
    assert order(*outcomes, candidates=candidates) == ["of add", "of sub", "again of add"]
    _, second, third = told("next", outcomes, candidates=candidates)
    assert "nothing before it practises sub" in second["reasons"]
    assert not any("nothing before" in reason for reason in third["reasons"])


def test_where_nothing_is_gained_what_is_in_the_zone_goes_first_and_all_are_told() -> None:
    outcomes = [0.95, 0.7, 0.2, *[0.5] * 9]
    assert order(*outcomes, candidates=[ADD, SUB, MUL])[0] == "of sub"
    assert len(order(*outcomes, candidates=[ADD, SUB, MUL])) == 3
    assert len(order(*outcomes, candidates=[ADD, SUB, MUL], count=2)) == 2


@settings(max_examples=25, deadline=None)
@given(requests(), st.lists(question, min_size=1, max_size=5))
def test_probabilities_and_gains_are_those_that_a_client_could_ask_for(
    body: dict[str, Any], candidates: list[dict[str, Any]]
) -> None:
    body = {**body, "candidates": candidates}
    recommended = told("next", **body)
    assert len(recommended) == min(5, len(candidates))
    chances = asked(arbitrary(), **body)
    assert asked(arbitrary(), "next", **body)[: len(chances)] == pytest.approx(chances, abs=1e-6)
    best = recommended[0]
    at = next(
        n
        for n, (c, p) in enumerate(zip(candidates, chances, strict=True))
        if c["item"] == best["item"] and abs(p - best["probability"]) < 1e-5
    )
    skills = list(dict.fromkeys(candidates[at]["skills"]))
    if not skills:
        return

    def levels(**changed: Any) -> float:
        now = {k: v for k, v in {**body, **changed}.items() if k != "candidates"}
        return sum(asked(arbitrary(), "mastery", **now, skills=skills)[: len(skills)])

    after = [
        levels(history=[*body["history"], {**candidates[at], "correct": c} | _now(body)])
        for c in (1.0, 0.0)
    ]
    expected = chances[at] * after[0] + (1 - chances[at]) * after[1] - levels()
    assert best["gain"] == pytest.approx(expected, abs=1e-4)


def _now(body: dict[str, Any]) -> dict[str, Any]:
    return {"time": body["time"]} if "time" in body else {}


@pytest.mark.parametrize("zone", [(0.8, 0.5), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_a_zone_in_which_nothing_lies_is_refused(zone: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=r"expected 0 <= lowest < highest <= 1"):
        VERBS["next"].request.model_validate({"candidates": [ADD], "zone": zone})
