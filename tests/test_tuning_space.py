"""Where a search looks, as a person writes it: what is meant, and what is refused beforehand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.request import TRIALS, planned
from ray_jobs.errors import UsageError
from ray_jobs.families import families, family, recipe, recipes
from ray_jobs.tuning.space import (
    SECTIONS,
    Choice,
    Range,
    as_json,
    current,
    from_json,
    parsed,
    text,
    tried,
)

PLAN = recipe("knowledge")
ATTENTION = recipe("knowledge-attention")
SPECS = [(kind, spec) for kind in families() for spec in family(kind).specs]


@pytest.mark.parametrize(
    ("word", "key", "domain"),
    [
        ("spec.width=16..256", "spec.width", Range(16, 256, whole=True)),
        ("spec.dropout=0..0.6", "spec.dropout", Range(0.0, 0.6)),
        ("spec.dropout=.1...5", "spec.dropout", Range(0.1, 0.5)),
        ("budget.learning_rate=1e-4..1e-1", "budget.learning_rate", Range(1e-4, 1e-1)),
        ("budget.schedule=cosine,linear", "budget.schedule", Choice(("cosine", "linear"))),
        ("spec.width=64,32,64", "spec.width", Choice((64, 32))),
        ("budget.compiled=true,false", "budget.compiled", Choice((True, False))),
        ("budget.epochs=3..9", "budget.epochs", Range(3, 9, whole=True)),
    ],
)
def test_a_word_means_a_range_or_a_choice_of_the_settings_own_type(
    word: str, key: str, domain: Range | Choice
) -> None:
    assert parsed([word], PLAN) == {key: domain}
    found = parsed([word], PLAN)[key]
    ends = found.values if isinstance(found, Choice) else (found.low, found.high)
    assert {type(end) for end in ends} == {type(current(PLAN, key))}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["spec.widht=1..2"], "no setting 'spec.widht'"),
        (["spec=1..2"], "has parts; set one of spec.width"),
        (["spec.width.x=1..2"], "'width' has no parts"),
        (["spec.width"], "expected KEY=LOW..HIGH or KEY=A,B,C"),
        (["spec.width="], "expected KEY=LOW..HIGH or KEY=A,B,C"),
        (["spec.width=32..16"], "expected LOW below HIGH"),
        (["spec.width=16..16"], "expected LOW below HIGH"),
        (["spec.width=a..b"], "expected int"),
        (["spec.width=1.5..3"], "expected int"),
        (["spec.width=..3"], "expected int"),
        (["spec.dropout=0..inf"], "expected a finite number"),
        (["spec.dropout=0..2"], "spec.dropout=2: expected at least 0 and at most 0.95"),
        (["spec.dropout=0.1,nan"], "expected a finite number"),
        (["spec.dropout=0.1,5"], "at most 0.95"),
        (["spec.width=16"], "one value is no search; fix it with --set"),
        (["spec.width=16,16"], "one value is no search"),
        (["budget.schedule=cosine..linear"], "is str, of which there is no range"),
        (["budget.schedule=cosine,steep"], "expected one of cosine, linear, constant"),
        (["budget.compiled=false..true"], "is bool, of which there is no range"),
        (["budget.compiled=true,maybe"], "expected bool"),
        (["budget.learning_rate=0..1"], "budget.learning_rate=0: expected at least"),
        (["seed=0..9"], "only spec.… and budget.… can be searched"),
        (["split.test=0.1..0.3"], "only spec.… and budget.… can be searched"),
        (["spec.width=8..16", "spec.width=16..32"], "spec.width is given twice"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_way_out(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parsed(words, PLAN)
    assert said in str(refused.value)
    assert str(refused.value).startswith("--search ")
    assert refused.value.exit_code == 2


def test_a_choice_that_does_not_go_with_what_is_fixed_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a multiple of heads, 4"):
        parsed(["spec.width=64,66"], ATTENTION)


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e6), st.floats(0, 1))
def test_what_is_drawn_lies_within_its_range_and_is_what_is_printed(
    low: float, times: float, place: float
) -> None:
    domain = Range(low, low * times)
    plain = domain.plain(low + place * (domain.high - low))
    assert domain.holds(plain)
    assert float(text(plain)) == plain
    assert math.isclose(plain, low + place * (domain.high - low), rel_tol=1e-3)


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6))
def test_a_range_is_searched_by_its_logarithm_where_it_spans_a_decade_above_zero(
    low: float, width: float
) -> None:
    high = low + width
    assert Range(low, high).log == (low > 0 and high / low >= 10)


@pytest.mark.parametrize("name", sorted(recipes()))
def test_a_space_comes_back_from_json(name: str) -> None:
    space = family(recipe(name).family).spaces.get(recipe(name).spec.name, {})
    assert from_json(as_json(space)) == dict(space)


@pytest.mark.parametrize(("kind", "spec"), SPECS)
def test_what_a_family_suggests_can_be_tried_at_every_end(kind: str, spec: str) -> None:
    space = family(kind).spaces.get(spec, {})
    of = next(r for r in (m() for m in family(kind).recipes.values()) if r.spec.name == spec)
    for key, domain in space.items():
        assert key.partition(".")[0] in SECTIONS
        assert key != "budget.epochs", "the length of a whole training, by which trials compare"
        ends = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        for end in ends:
            assert current(tried(of, {key: end}), key) == end
        assert domain.holds(current(of, key)), "the first trial is the recipe's own"
    assert set(family(kind).spaces) <= set(family(kind).specs)


@pytest.mark.parametrize("kind", families())
def test_of_each_family_something_is_searched_that_a_loop_trains(kind: str) -> None:
    networks = [n for n, spec in family(kind).specs.items() if not hasattr(spec, "fit")]
    assert networks
    assert set(networks) <= set(family(kind).spaces)


def test_what_is_searched_is_what_was_asked_for_or_what_the_family_suggests() -> None:
    suggested = dict(family("knowledge").spaces["lstm"])
    assert planned(PLAN, {}, [], None) == (suggested, TRIALS)
    space, trials = planned(PLAN, {"spec.width": "32", "split.test": "0.3"}, [], 3)
    assert trials == 3
    assert space == {k: v for k, v in suggested.items() if k != "spec.width"}
    asked, _ = planned(PLAN, {"spec.width": "32"}, ["spec.dropout=0..0.5"], None)
    assert asked == {"spec.dropout": Range(0.0, 0.5)}


@pytest.mark.parametrize(
    ("name", "fixed", "words", "trials", "said"),
    [
        ("knowledge", {}, [], 0, "--trials 0: expected at least 1"),
        ("knowledge", {"spec.width": "8"}, ["spec.width=8,16"], 1, "to --set and to --search"),
        ("tabular", {}, [], None, "tabular suggests no settings of stack"),
        ("knowledge-rasch", {"spec.prior": "1"}, [], None, "nothing is left to search"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_starts(
    name: str, fixed: dict[str, str], words: list[str], trials: int | None, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        planned(recipe(name), fixed, words, trials)
    assert said in str(refused.value)
