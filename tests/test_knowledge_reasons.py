"""Why a prediction is what it is: the answers that moved it, found by leaving each out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.families.knowledge import reasons
from ray_jobs.families.knowledge.api import VERBS, PredictRequest
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.predictor import predict
from tests.knowledge_parts import KNOWLEDGE, SKILLS, VOCABULARY, arbitrary, asked
from tests.test_knowledge_api import requests

pytestmark = pytest.mark.usefixtures("one_thread")

VERB = VERBS["predict"]
CANDIDATES = [{"item": "i1", "skills": ["add"]}, {"item": "odd", "skills": ["mul", "new"]}]


def explained(name: str, **body: Any) -> list[dict[str, Any]]:
    """The reasons that a client is told."""
    assert VERB.explanation is not None
    request = VERB.request.model_validate(body)
    histories = VERB.explanation.examples(request, VOCABULARY)
    assert VERB.explanation.cost(request) == sum(map(KNOWLEDGE.cost, histories))
    return VERB.explanation.reasons(request, predict(arbitrary(name), histories), VOCABULARY)


def past(answers: int, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {
            "item": f"i{random.integers(1, 6)}",
            "skills": sorted(set(random.choice(SKILLS, random.integers(0, 3)))),
            "correct": float(random.integers(2)),
            "time": 1000.0 * n,
        }
        for n in range(answers)
    ]


@settings(max_examples=25, deadline=None)
@given(requests())
def test_an_effect_is_the_prediction_less_that_of_the_past_without_the_answer(
    body: dict[str, Any],
) -> None:
    told = explained("lstm", **body)
    chances = asked(arbitrary(), **body)
    assert len(told) == len(body["candidates"]) * len(body["history"])
    for reason in told:
        at = reason["answer"]
        assert reason["item"] == body["history"][at]["item"]
        assert reason["correct"] == body["history"][at]["correct"]
        less = {**body, "history": body["history"][:at] + body["history"][at + 1 :]}
        without = asked(arbitrary(), **less)[reason["candidate"]]
        assert reason["effect"] == pytest.approx(chances[reason["candidate"]] - without, abs=1e-5)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_the_weightiest_of_each_candidate_come_first_and_there_are_not_many(name: str) -> None:
    told = explained(name, history=past(25), candidates=CANDIDATES)
    for number in range(len(CANDIDATES)):
        effects = [abs(r["effect"]) for r in told if r["candidate"] == number]
        assert len(effects) == reasons.TOLD
        assert effects == sorted(effects, reverse=True)
        assert effects[0] > 0


def test_without_a_past_there_are_no_reasons() -> None:
    assert explained("lstm", history=[], candidates=CANDIDATES) == []


def test_of_a_long_past_the_latest_answers_are_looked_at_and_the_rest_is_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reasons, "LOOKED_AT", 6)
    history = past(15, seed=1)
    told = explained("lstm", history=history, candidates=CANDIDATES[:1])
    assert sorted(reason["answer"] for reason in told) == list(range(9, 15))
    whole = asked(arbitrary(), history=history, candidates=CANDIDATES[:1])[0]
    without = asked(arbitrary(), history=history[:-1], candidates=CANDIDATES[:1])[0]
    last = next(reason for reason in told if reason["answer"] == 14)
    assert last["effect"] == pytest.approx(whole - without, abs=1e-5)


@given(st.integers(0, 12))
def test_of_answers_that_moved_it_alike_the_later_comes_first(answers: int) -> None:
    body = {"history": [{"item": "i1", "correct": 1}] * answers, "candidates": CANDIDATES[:1]}
    request = PredictRequest.model_validate(body)
    outcomes = [np.array([0.5], np.float32)] * (answers + 1)
    told = reasons.reasons(request, outcomes, VOCABULARY)
    assert [reason["answer"] for reason in told] == list(range(answers))[::-1][: reasons.TOLD]
