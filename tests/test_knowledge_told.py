"""Answers that a client tells: read at once or one by one, they are the same columns."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ray_jobs.families.knowledge.api import PredictRequest
from ray_jobs.families.knowledge.table import LONGEST_NAME, MOST_SKILLS
from ray_jobs.families.knowledge.told import MAX_ANSWERS, Answer, AnswerList, _plain, reader
from tests.surface_parts import Ask

ONE_BY_ONE = TypeAdapter(list[Answer])
AT_ONCE = TypeAdapter(AnswerList)
NAMES = ["a", "ä" * LONGEST_NAME, "b" * (LONGEST_NAME + 1), "", 3, None, "1"]
FIELDS: dict[str, list[Any]] = {
    "item": NAMES,
    "correct": [0, 1, 0.5, -0.0, True, "1", "yes", -0.1, 1.5, 2, math.nan, math.inf, None],
    "skills": [
        [], ["a", "b"], ["a", "a"], ["ü"] * MOST_SKILLS, ["a"] * (MOST_SKILLS + 1), ("a",), "ab",
        None, {"a": 1}, *([name] for name in NAMES),
    ],
    "time": [
        None, 0, 5, 1.5, -1, 2**63 + 1, 10**400, 1e308, math.inf, -math.inf, math.nan, "5", False,
    ],
    "times": [1],
}  # fmt: skip
GOOD = {"item": "a", "correct": 1, "skills": ["x"], "time": 5}


@st.composite
def histories(draw: st.DrawFn) -> list[Any]:
    """Answers most of which are as they should be, and one now and then that is not."""
    answers: list[Any] = []
    for _ in range(draw(st.integers(1, 4))):
        answer: Any = dict(GOOD)
        for name in draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=2)):
            if name in answer and draw(st.booleans()):
                del answer[name]
            else:
                answer[name] = draw(st.sampled_from(FIELDS[name]))
        answers.append(draw(st.sampled_from([answer] * 9 + [None, [], "a"])))
    return answers


def looked_at(history: list[Any], how: TypeAdapter[Any]) -> tuple[Any, list[Any]]:
    """What it becomes, or what is wrong with it and where."""
    try:
        return how.validate_python(history), []
    except ValidationError as error:
        return None, error.errors(include_url=False, include_input=False)


@settings(max_examples=2000, deadline=None)
@given(histories())
def test_at_once_is_as_one_by_one(history: list[Any]) -> None:
    answers, wrong = looked_at(history, ONE_BY_ONE)
    told, wrong_at_once = looked_at(history, AT_ONCE)
    assert wrong_at_once == wrong
    if wrong:
        assert _plain(history) == []
        return
    expected = AnswerList.of(answers)
    assert told.items == expected.items
    assert [tuple(names) for names in told.skills] == [tuple(names) for names in expected.skills]
    assert told.correct == expected.correct
    assert told.times == expected.times
    assert {type(one) for one in (*told.correct, *told.times)} <= {float, type(None)}


@pytest.mark.parametrize("left_out", [(), ("time",), ("skills",), ("skills", "time")], ids="-".join)
def test_what_nearly_all_tell_is_read_at_once(left_out: tuple[str, ...]) -> None:
    answer = {name: value for name, value in GOOD.items() if name not in left_out}
    assert len(_plain([answer] * 3)) == 3
    assert len(_plain([answer, {**GOOD, "correct": 0.25, "time": None}])) == 2


def test_too_many_are_refused_before_they_are_read() -> None:
    with pytest.raises(ValidationError, match=f"at most {MAX_ANSWERS} items"):
        AT_ONCE.validate_python([GOOD] * (MAX_ANSWERS + 1))
    assert READ(orjson.dumps({"history": [GOOD] * (MAX_ANSWERS + 1)})) is None
    assert len(READ(orjson.dumps({"history": [GOOD] * MAX_ANSWERS}))["history"]) == MAX_ANSWERS
    assert len(AT_ONCE.validate_python([GOOD] * MAX_ANSWERS)) == MAX_ANSWERS


def test_of_nothing_there_is_nothing() -> None:
    assert AT_ONCE.validate_python([]) == AnswerList()


def test_clients_are_told_of_answers_and_not_of_columns() -> None:
    schema = AT_ONCE.json_schema()
    assert schema["type"] == "array"
    assert schema["maxItems"] == MAX_ANSWERS
    assert schema["items"] == {"$ref": "#/$defs/Answer"}


READ = reader(PredictRequest)
CANDIDATE = {"item": "b", "skills": []}


def read_and_validated(data: bytes) -> PredictRequest:
    told = READ(data)
    assert told is not None
    return PredictRequest.model_validate(told)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional={k: st.just(v) for k, v in GOOD.items()})))
def test_a_body_read_at_once_is_the_request_that_its_json_is(history: list[Any]) -> None:
    body = {"history": history, "candidates": [CANDIDATE], "learner": "Ada", "time": 7}
    data = orjson.dumps(body)
    if any(not {"item", "correct"} <= answer.keys() for answer in history):
        assert READ(data) is None
        return
    request, expected = read_and_validated(data), PredictRequest.model_validate(body)
    assert request.model_dump(exclude={"history"}) == expected.model_dump(exclude={"history"})
    assert request.model_fields_set == expected.model_fields_set
    assert request.history == expected.history
    many = READ(orjson.dumps({"instances": [body, {"candidates": []}]}))
    assert list(many) == ["instances"]
    assert PredictRequest.model_validate(many["instances"][0]).history == expected.history
    assert many["instances"][1] == {"candidates": []}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{} x",
        b'{"history":null}',
        b'{"history":[{"item":3,"correct":1}]}',
        b'{"histories":[]}',
        b'{"instances":[{"histories":[]}]}',
        b'{"instances":[[]]}',
        b'{"time":NaN}',
        b'{"learner":"\xff"}',
        b'{"learner":"\\ud800"}',
        b'{"learner":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda data: data[:30].decode("latin-1"),
)
def test_what_is_not_as_usual_is_left_to_be_looked_at(data: bytes) -> None:
    assert READ(data) is None


@pytest.mark.parametrize("digits", [400, 5000])
@pytest.mark.parametrize("field", ["time", "learner", "state", "history", "candidates", "item"])
def test_a_number_beyond_all_bounds_is_refused_as_anything_else_is(
    ask: Ask, field: str, digits: int
) -> None:
    number = "9" * digits
    told = f'"candidates":[{{"item":{number}}}]' if field == "item" else f'"{field}":{number}'
    for data in (f"{{{told}}}", f'{{"instances":[{{{told}}}]}}'):
        answer = ask("POST", "v1/predict", data.encode())
        assert answer.status_code in {400, 422}
        assert answer.status_code == 400 or f"/{field}" in answer.text
