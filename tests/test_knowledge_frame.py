"""What a frame promises the analyst who holds it: each row answered as the service would."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge.frame import example, frame
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.predictor import predict
from tests.knowledge_parts import ITEMS, SKILLS, VOCABULARY, arbitrary, asked


def told(rows: pd.DataFrame) -> NDArray[np.float64]:
    """The probability of each row."""
    histories, order = frame(rows, VOCABULARY)
    assert sorted(order) == list(range(len(rows)))
    result = np.full(len(rows), np.nan)
    result[order] = np.concatenate(predict(arbitrary(), histories))
    return result


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Answers and questions of a few learners, in order of time for each."""
    row = st.fixed_dictionaries(
        {
            "learner": st.sampled_from(["ann", "question 1: ann", "bob"]),
            "item": st.sampled_from([*ITEMS, "strange"]),
            "skills": st.sets(st.sampled_from([*SKILLS, "new"])).map(sorted),
            "correct": st.sampled_from([0.0, 0.5, 1.0, None]),
        }
    )
    rows = draw(st.lists(row, min_size=1, max_size=12))
    times = [1.7e9 + n * 60 if draw(st.booleans()) else None for n in range(len(rows))]
    return pd.DataFrame(rows).assign(time=times)


@settings(max_examples=25, deadline=None)
@given(frames())
def test_a_row_is_answered_as_the_service_answers_its_learner(rows: pd.DataFrame) -> None:
    chances = told(rows)
    known: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows.to_dict("records")):
        past = known.setdefault(row["learner"], [])
        moment = {} if pd.isna(row["time"]) else {"time": row["time"]}
        question = {"item": row["item"], "skills": row["skills"]}
        expected = asked(arbitrary(), history=past, candidates=[question], **moment)
        assert chances[number] == pytest.approx(expected[0], abs=1e-5)
        if not pd.isna(row["correct"]):
            past.append({**question, **moment, "correct": row["correct"]})


@settings(max_examples=25, deadline=None)
@given(frames(), st.randoms(use_true_random=False))
def test_however_learners_are_mixed_each_row_keeps_its_probability(
    rows: pd.DataFrame, dice: Any
) -> None:
    # Whose row comes next is drawn; the rows of each learner stay in their order.
    turns = dice.sample(rows["learner"].tolist(), len(rows))
    queues = {name: list(part.index) for name, part in rows.groupby("learner")}
    order = [queues[name].pop(0) for name in turns]
    np.testing.assert_allclose(told(rows.loc[order]), told(rows)[order], atol=1e-5)


PLAIN = {"learner": "1", "item": "i2", "skills": ["add", "sub"], "correct": 1.0, "time": 9.0}
SAME: dict[str, list[Any]] = {
    "learner": [1, "1", np.int64(1)],
    "skills": [("sub", "add"), {"add", "sub"}, np.array(["sub", "add"]), "add;sub", " sub ;add;",
               ["add", "sub", "add", ""]],
    "correct": [True, 1, "1", np.float32(1)],
    "time": [9, "9", np.int64(9)],
}  # fmt: skip
NOTHING: list[Any] = [None, float("nan"), pd.NA, pd.NaT]


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, of in SAME.items() for v in of])
def test_a_value_means_the_same_however_it_is_held(name: str, value: Any) -> None:
    last = {**PLAIN, "item": "i3", "correct": None, "time": 20.0}
    plain, other = ([row.copy() for row in (PLAIN, PLAIN, last)] for _ in range(2))
    other[1][name] = value
    expected = told(pd.DataFrame(plain, dtype=object))
    np.testing.assert_array_equal(told(pd.DataFrame(other, dtype=object)), expected)


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_nothing_is_nothing_however_pandas_spells_it(nothing: Any) -> None:
    rows = [PLAIN, {**PLAIN, "skills": nothing, "correct": nothing, "time": nothing}]
    plain = [PLAIN, {**PLAIN, "skills": [], "correct": None, "time": None}]
    found = told(pd.DataFrame(rows, dtype=object))
    np.testing.assert_array_equal(found, told(pd.DataFrame(plain, dtype=object)))
    for name in ("learner", "item"):
        broken = pd.DataFrame([PLAIN, {**PLAIN, name: nothing}], dtype=object)
        with pytest.raises(ContractError, match=f"^row 1: {name} is empty; expected a name$"):
            frame(broken, VOCABULARY)


def test_columns_of_the_kinds_that_pandas_has_are_read_alike() -> None:
    rows = pd.DataFrame([PLAIN, {**PLAIN, "item": "i1", "correct": None}])
    typed = rows.astype({"learner": "category", "item": "string", "correct": "Int64"})
    typed["time"] = typed["time"].astype("Int32")
    np.testing.assert_array_equal(told(typed), told(rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": [1, -0.5, 9]}, "row 1: correct is -0.5; expected 0 to 1, or empty for asking"),
        ({"correct": [1, 0, float("inf")]}, "row 2: correct is inf; expected 0 to 1"),
        ({"time": [9, 8, 7]}, "row 1: its time is before that of the learner's previous row; sort"),
        ({"time": [1, "noon", "now"]}, "row 1: time is 'noon'; expected a number"),
        ({"time": [pd.Timestamp(9)] * 3}, "row 0: time is Timestamp('1970-01-01 00:00:00.00000000"),
        ({"skills": ["add", 1.5, 2]}, "row 1: skills is 1.5; expected a list, or names with ';'"),
        ({"item": ["i1", "i2", None]}, "row 2: item is empty; expected a name"),
    ],
)
def test_of_several_wrong_rows_the_first_is_named(change: dict[str, Any], message: str) -> None:
    rows = pd.DataFrame([PLAIN] * 3, dtype=object).assign(**change)
    with pytest.raises(ContractError, match=f"^{re.escape(message)}"):
        frame(rows, VOCABULARY)


def test_one_learners_time_is_not_held_against_another() -> None:
    rows = pd.DataFrame([PLAIN, {**PLAIN, "learner": "2", "time": 1.0}, PLAIN])
    assert np.isfinite(told(rows)).all(), "and one moment may be that of two answers"


@pytest.mark.parametrize("items", [(), ("a",), ("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("skills", [(), ("s", "t")])
def test_an_example_asks_last_for_an_item_that_was_never_seen(
    items: tuple[str, ...], skills: tuple[str, ...]
) -> None:
    rows = pd.DataFrame(example(Vocabulary(items, skills)))
    assert rows["item"].to_list() == [*items[:2], "an item never seen"]
    assert rows["correct"].isna().to_list() == [False] * len(items[:2]) + [True]
    histories, order = frame(rows, Vocabulary(items, skills))
    assert order.tolist() == list(range(len(rows)))
    assert len(histories) == min(len(rows), 2), "the learner's past, and the question"
