"""What recipes promise: settings of the right name and type or none, and specs that come back."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.errors import UsageError
from ray_jobs.families import families, family, recipe, recipes
from ray_jobs.recipe import Recipe, as_dict, spec_from


@dataclass(frozen=True)
class Net:
    """A spec with a field of every kind."""

    name: ClassVar[str] = "net"
    width: int = 8
    rate: float = 0.1
    gated: bool = False
    note: str = ""
    depth: int | None = None

    def build(self, vocabulary: Any) -> None:
        raise NotImplementedError


MADE = Recipe("trial", "knowledge", "school", Net())


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "7", 7),
        ("data", "logs/*.csv", "logs/*.csv"),
        ("service", "geometry", "geometry"),
        ("max_bad_fraction", "0.5", 0.5),
        ("budget.epochs", "3", 3),
        ("budget.learning_rate", "1e-4", 1e-4),
        ("split.until", "0.8", 0.8),
        ("spec.width", "16", 16),
        ("spec.gated", "TRUE", True),
        ("spec.depth", "4", 4),
    ],
)
def test_a_setting_arrives_with_its_type_and_changes_nothing_else(
    key: str, text: str, value: Any
) -> None:
    changed = MADE.overridden(**{key: text})
    found: Any = changed
    for part in key.split("."):
        found = getattr(found, part)
    assert (found, type(found)) == (value, type(value))
    was, now = flat(as_dict(MADE)), flat(as_dict(changed))
    assert {name for name in was if was[name] != now[name]} == {key}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in values.items():
        inner = flat(value, f"{name}.") if isinstance(value, dict) else {prefix + name: value}
        result |= inner
    return result


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("budget.epoch", "3", r"no setting 'budget\.epoch'; at 'epoch' there are: batch_cost"),
        ("epochs", "3", "no setting 'epochs'"),
        ("", "3", "no setting ''"),
        ("name", "x", "no setting 'name'"),
        ("family", "x", "no setting 'family'"),
        ("spec.name", "x", r"no setting 'spec\.name'"),
        ("budget", "3", r"has parts; set one of budget\.epochs"),
        ("seed.x", "3", "'seed' has no parts; write seed=value"),
        ("seed", "three", "seed='three': expected int"),
        ("budget.epochs", "3.5", r"budget\.epochs='3\.5': expected int"),
        ("budget.learning_rate", "fast", "expected float"),
        ("budget.learning_rate", "nan", "expected a finite number"),
        ("spec.gated", "perhaps", "expected bool"),
        ("split.test", "1.5", "expected test and validation"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(key: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MADE.overridden(**{key: text})


@settings(deadline=None)
@given(st.builds(Net, st.integers(), st.floats(allow_nan=False), st.booleans(), st.text("ab")))
def test_a_spec_comes_back_from_json_as_it_was(spec: Net) -> None:
    values = orjson.loads(orjson.dumps(as_dict(spec))) if abs(spec.width) < 2**53 else as_dict(spec)
    if spec.rate in {float("inf"), float("-inf")}:
        values = as_dict(spec)
    assert values["name"] == "net"
    assert spec_from(values, {"net": Net}) == spec


@pytest.mark.parametrize("values", [{"name": "rnn"}, {"width": 3}, {"name": "net", "heads": 2}])
def test_a_spec_that_there_is_not_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"no spec|not of this version"):
        spec_from(values, {"net": Net})


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_found_by_its_name_and_fits_its_family(name: str) -> None:
    made = recipe(name)
    assert made.name == name
    assert made.family in families()
    kind = family(made.family)
    assert spec_from(as_dict(made.spec), kind.specs) == made.spec
    assert orjson.loads(orjson.dumps(as_dict(made))) == as_dict(made)
    with pytest.raises(FrozenInstanceError):
        made.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", recipes())
def test_every_number_of_a_recipe_can_be_set(name: str) -> None:
    made = recipe(name)
    for f in fields(made):
        part = getattr(made, f.name)
        for leaf in fields(part) if is_dataclass(part) else ():
            value = getattr(part, leaf.name)
            assert made.overridden(**{f"{f.name}.{leaf.name}": str(value)}) == made


def test_unknown_recipes_and_families_are_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no recipe 'knowlege'; there are knowledge"):
        recipe("knowlege")
    with pytest.raises(UsageError, match="no family 'x'; there are knowledge"):
        family("x")
