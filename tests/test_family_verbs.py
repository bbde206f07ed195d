"""What every verb of every family promises those who ask, over HTTP or with a frame in hand.

As in the contract of the models, no family is named: verbs are found in its record.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import orjson
import pandas as pd
import pytest
from pydantic import ValidationError

from ray_jobs.artifact import Artifact
from ray_jobs.errors import ContractError
from ray_jobs.families import families, family
from ray_jobs.predictor import predict
from ray_jobs.privacy import Key
from ray_jobs.serving.sealed import sealed
from ray_jobs.verb import Verb
from tests.family_parts import sampled, taught


def verbs_of(kind: str) -> Mapping[str, Verb]:
    return family(kind).api.verbs(family(kind).vocabulary([sampled(kind).train]))


KEY = Key(bytes(32))
VERBS = [(kind, verb) for kind in families() for verb in verbs_of(kind)]
each_family = pytest.mark.parametrize("kind", families())
each_verb = pytest.mark.parametrize(("kind", "name"), VERBS)


def baseline(kind: str) -> Artifact:
    return taught(kind, family(kind).baseline().name)


def documented(verb: Verb) -> list[dict[str, Any]]:
    """The examples that the documentation of a verb shows."""
    found = verb.request.model_json_schema()["examples"]
    assert isinstance(found, list)
    return found


def answered(model: Artifact, verb: Verb, body: dict[str, Any]) -> dict[str, Any]:
    request = verb.request.model_validate_json(orjson.dumps(body))
    examples = verb.examples(request, model.vocabulary)
    assert verb.cost(request) == sum(map(model.family.cost, examples)), "told before it is made"
    answer = verb.answer(request, predict(model, examples), model.vocabulary)
    if verb.keeps:
        answer["state"] = sealed(KEY, answer["state"], service="s", version="1", digest="d")
    return answer


def fits(value: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


@each_verb
def test_a_documented_example_fits_its_schema_and_is_answered_as_documented(
    kind: str, name: str
) -> None:
    verb = verbs_of(kind)[name]
    assert verb.summary
    assert documented(verb)
    for body in documented(verb):
        fits(body, verb.request.model_json_schema())
        answer = orjson.loads(orjson.dumps(answered(baseline(kind), verb, body)))
        fits(answer, verb.response.model_json_schema())
        told = verb.response.model_validate(answer)
        said = orjson.loads(told.model_dump_json(exclude_unset=True))
        assert said == answer, "nothing beside what is documented"


def misspelt(body: Any) -> Iterator[Any]:
    """The body with a field too many in one of its objects, in each of them in turn."""
    if isinstance(body, dict):
        yield {**body, "misspelt": 1}
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        for wrong in misspelt(value) if isinstance(value, dict | list) else ():
            other = copy.copy(body)
            other[key] = wrong
            yield other


@each_verb
def test_a_field_that_there_is_not_is_refused_wherever_it_stands(kind: str, name: str) -> None:
    verb = verbs_of(kind)[name]
    for body in documented(verb):
        wrongs = list(misspelt(body))
        assert wrongs
        for wrong in wrongs:
            with pytest.raises(ValidationError, match="misspelt") as caught:
                verb.request.model_validate(wrong)
            assert caught.value.error_count() == 1
            with pytest.raises(jsonschema.ValidationError, match="misspelt"):
                fits(wrong, verb.request.model_json_schema())


@each_verb
def test_no_number_that_is_none_passes_a_request(kind: str, name: str) -> None:
    verb = verbs_of(kind)[name]
    for body in documented(verb):
        for value in (float("nan"), float("inf")):
            for wrong in replaced(body, value):
                with pytest.raises(ValidationError):
                    verb.request.model_validate(wrong)


def replaced(body: Any, number: float) -> Iterator[Any]:
    """The body with another number in place of one of its own, of each in turn."""
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        inner = replaced(value, number) if isinstance(value, dict | list) else ()
        for wrong in [number] if type(value) in (int, float) else inner:
            other = copy.copy(body)
            other[key] = wrong
            yield other


@each_family
def test_golden_requests_are_some_that_differ_and_each_is_answered(kind: str) -> None:
    table, verb = sampled(kind).test, verbs_of(kind)["predict"]
    make, vocabulary = family(kind).api.golden, baseline(kind).vocabulary
    golden = make(table, vocabulary)
    assert golden == make(table.clone(), vocabulary), "the same table, the same requests"
    assert len({orjson.dumps(body) for body in golden}) >= 3
    for body in golden:
        fits(body, verb.request.model_json_schema())
        answer = answered(baseline(kind), verb, body)
        fits(orjson.loads(orjson.dumps(answer)), verb.response.model_json_schema())


@each_family
def test_a_frame_gives_each_of_its_rows_one_prediction(kind: str) -> None:
    api, model = family(kind).api, baseline(kind)
    rows = pd.DataFrame(api.example(model.vocabulary))
    assert set(rows.columns) <= {column.name for column in api.columns(model.vocabulary)}
    examples, order = api.frame(rows, model.vocabulary)
    assert sorted(order.tolist()) == list(range(len(rows)))
    told = np.concatenate(predict(model, examples))
    assert len(told) == len(rows)
    noted = rows.assign(note="of the analyst").set_index(pd.Index(["x"] * len(rows)))
    others, same = api.frame(noted, model.vocabulary)
    assert np.array_equal(np.concatenate(predict(model, others)), told), "neither read nor refused"
    assert np.array_equal(order, same)


@each_family
def test_a_frame_lacks_only_what_may_be_missing(kind: str) -> None:
    api, model = family(kind).api, baseline(kind)
    rows = pd.DataFrame(api.example(model.vocabulary))
    for column in api.columns(model.vocabulary):
        less = rows.drop(columns=column.name, errors="ignore")
        if column.required:
            with pytest.raises(ContractError, match=f"no column {column.name!r}") as caught:
                api.frame(less, model.vocabulary)
            assert all(
                f"{c.name} ({c.meaning})" in str(caught.value)
                for c in api.columns(model.vocabulary)
            )
        else:
            assert len(api.frame(less, model.vocabulary)[1]) == len(rows)


@each_family
def test_an_empty_frame_is_an_empty_answer(kind: str) -> None:
    api, model = family(kind).api, baseline(kind)
    rows = pd.DataFrame(api.example(model.vocabulary)).head(0)
    examples, order = api.frame(rows, model.vocabulary)
    assert (list(examples), order.tolist()) == ([], [])
