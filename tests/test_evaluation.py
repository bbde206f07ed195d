"""A report compares models on the same rows, divides them rightly, and survives JSON."""

from __future__ import annotations

import math

import numpy as np
import orjson
import polars as pl
import pytest

from ray_jobs.curves import roc_points
from ray_jobs.errors import ContractError
from ray_jobs.evaluation import SMALLEST_SLICE, Evaluation, compare
from ray_jobs.families.knowledge.slices import slices
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from tests.judging import judged
from tests.knowledge_parts import saying_no_more


def report_rows(groups: int = 80, each: int = 25) -> pl.DataFrame:
    """A world in which `prediction` is a little better than `baseline`."""
    rng = np.random.default_rng(0)
    n = groups * each
    ability = np.repeat(rng.normal(0, 1, groups), each)
    difficulty = rng.normal(0, 1, n)
    logit = ability - difficulty
    return pl.DataFrame(
        {
            "group": np.repeat([f"learner {i}" for i in range(groups)], each),
            "target": (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32),
            "prediction": 1 / (1 + np.exp(-logit - rng.normal(0, 0.3, n))),
            "baseline": 1 / (1 + np.exp(-logit - rng.normal(0, 0.8, n))),
            "half": pl.Series(np.tile(["b", "b", "b", "a", "a"], n // 5)).cast(pl.Enum(["a", "b"])),
            "tags": [["x", "y"], ["x"], [], ["z"], ["x"]] * (n // 5),
        }
    )


def test_paired_differences_are_sharper_than_intervals_apart() -> None:
    rows = report_rows()
    mine, other = judged(rows), judged(rows, prediction="baseline")
    gain = compare(mine, other)["auc"]
    apart = mine.metrics["auc"].high - mine.metrics["auc"].low
    assert gain.value == pytest.approx(mine.metrics["auc"].value - other.metrics["auc"].value)
    assert gain.high - gain.low < 0.6 * apart
    assert gain.excludes_zero


def test_a_model_differs_from_itself_by_nothing() -> None:
    rows = report_rows()
    for gain in compare(judged(rows), judged(rows)).values():
        assert (gain.value, gain.low, gain.high) == (0, 0, 0)
        assert not gain.excludes_zero


def test_models_judged_on_different_rows_cannot_be_compared() -> None:
    rows = report_rows()
    with pytest.raises(AssertionError, match="different rows"):
        compare(judged(rows), judged(rows.head(100)))


def test_slices_hold_the_right_rows_in_their_own_order() -> None:
    rows = report_rows()
    found = judged(rows, slices=["half", "tags"]).slices
    assert list(found["half"]) == ["a", "b"]
    assert found["half"]["a"].rows == 2 * len(rows) // 5
    assert {name: part.rows for name, part in found["tags"].items()} == {
        "x": 3 * len(rows) // 5,
        "y": len(rows) // 5,
        "z": len(rows) // 5,
    }
    alone = judged(rows.filter(pl.col("half") == "a"))
    assert found["half"]["a"].metrics["auc"] == alone.metrics["auc"]


def test_a_small_slice_and_one_of_a_single_outcome_show_their_size_and_no_figures() -> None:
    rows = report_rows()
    few = SMALLEST_SLICE - 1
    size = pl.int_range(pl.len())
    name = pl.when(size < few).then(pl.lit("few")).when(pl.col("target") == 1).then(pl.lit("right"))
    found = judged(rows.with_columns(name.otherwise(pl.lit("wrong")).alias("s")), slices=["s"])
    assert found.slices["s"]["few"].rows == few
    for part in found.slices["s"].values():
        assert all(math.isnan(figure.value) for figure in part.metrics.values())
    plain = found.as_dict()["slices"]["s"]["few"]["metrics"]["auc"]
    assert plain == {"value": None, "low": None, "high": None}


def test_one_learner_gives_figures_and_no_intervals() -> None:
    found = judged(report_rows().with_columns(group=pl.lit("only one"))).metrics["auc"]
    assert 0.5 < found.value < 1
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_report_comes_back_from_json_as_it_was() -> None:
    before = judged(report_rows(), slices=["half"])
    after = Evaluation.from_dict(orjson.loads(orjson.dumps(before.as_dict())))
    assert after == before
    with pytest.raises(AssertionError, match="read back"):
        compare(after, after)


def test_parts_of_any_type_are_known_by_their_words() -> None:
    rows = report_rows().with_columns(long=pl.int_range(pl.len()) % 2 == 0, part=pl.lit(7))
    found = judged(rows, slices=["long", "part"])
    assert {column: set(parts) for column, parts in found.slices.items()} == {
        "long": {"True", "False"}, "part": {"7"},
    }  # fmt: skip
    assert orjson.dumps(found.as_dict())


def test_curves_agree_with_the_figures() -> None:
    rows = report_rows()
    found = judged(rows)
    x, y = zip(*found.roc, strict=True)
    assert np.trapezoid(y, x) == pytest.approx(found.metrics["auc"].value, abs=0.003)
    assert sum(b.rows for b in found.calibration) == len(rows)
    gaps = sum(b.rows * abs(b.prediction - b.target) for b in found.calibration) / len(rows)
    assert gaps == pytest.approx(found.metrics["calibration_error"].value)
    assert sum(right for _, right in found.histogram) == rows["target"].sum()


def test_a_curve_rises_from_nothing_and_ties_move_together() -> None:
    target, prediction = np.array([1.0, 0.0, 0.5, 0.0]), np.array([0.9, 0.5, 0.5, 0.1])
    assert roc_points(target, prediction) == [(0, 0), (0, 0.5), (0.5, 1), (1, 1)]
    for only in (0.0, 1.0):
        assert roc_points(np.full(4, only), prediction) == []


def test_a_histogram_has_all_its_bins_and_half_the_credit_is_right() -> None:
    low = pl.DataFrame({"group": [1, 2, 3], "target": [0.5, 0.49, 0.0], "prediction": [0.02] * 3})
    histogram = judged(low).histogram
    assert histogram == [(2, 1), *[(0, 0)] * 19]
    histogram = judged(low.with_columns(prediction=pl.lit(1.0))).histogram
    assert histogram == [*[(0, 0)] * 19, (2, 1)]


def test_slices_come_largest_first_and_rows_without_a_name_are_in_none() -> None:
    name = pl.Series("s", [None, "few", "many", "many", "many"] * 400)
    found = judged(report_rows().with_columns(name), slices=["s", "tags"]).slices
    assert {name: part.rows for name, part in found["s"].items()} == {"many": 1200, "few": 400}
    assert list(found["s"]) == ["many", "few"]
    assert next(iter(found["tags"])) == "x"


def test_two_learners_and_a_slice_of_just_enough_rows_have_their_figures() -> None:
    rows = report_rows(groups=2, each=SMALLEST_SLICE // 2).with_columns(s=pl.lit("all"))
    found = judged(rows, slices=["s"])
    assert found.metrics["auc"].low < found.metrics["auc"].high
    assert found.slices["s"]["all"].metrics["auc"] == found.metrics["auc"]


def test_nothing_to_evaluate_is_said_and_not_divided_by() -> None:
    with pytest.raises(ContractError, match="split is empty"):
        judged(report_rows().head(0))


def table() -> pl.DataFrame:
    """Learner a answers 52 times, b once; the second answer of a is context only."""
    skills = [["add"], ["add", "sub"], [], ["new"], ["add", "new"]] + [["add"]] * 48
    return pl.DataFrame(
        {
            "learner": ["a"] * 52 + ["b"],
            "item": ["one", "two", "unknown"] + ["one"] * 50,
            "skills": skills,
            "scored": [True, False] + [True] * 51,
        },
        schema_overrides={"skills": pl.List(pl.String)},
    )


def test_knowledge_slices_follow_history_vocabulary_and_skills() -> None:
    found = slices(saying_no_more(table()), Vocabulary(("one", "two"), ("add", "sub")))
    assert found["history"].to_list() == [
        "first answer",
        *["answers 2-10"] * 9,
        *["answers 11-50"] * 40,
        *["answers 51+"] * 2,
        "first answer",
    ]
    assert found["item"].to_list()[:4] == ["met in training"] * 2 + ["new", "met in training"]
    assert found["skills"].to_list()[:5] == [
        "all met in training",
        "all met in training",
        "none named",
        "some new",
        "some new",
    ]
    assert found["skill_count"].to_list()[:5] == ["1", "2", "0", "1", "2"]


def test_the_top_skills_are_those_of_scored_rows_and_an_answer_may_count_for_two() -> None:
    many = pl.DataFrame(
        {
            "learner": "a",
            "item": "one",
            "skills": [[f"s{i:02d}"] for i in range(12)] + [["s00", "s01"]] + [["ctx"]] * 5,
            "scored": [True] * 13 + [False] * 5,
        }
    )
    found = slices(saying_no_more(many), Vocabulary(("one",), ()))["skill"]
    named = found.explode().drop_nulls().unique().sort().to_list()
    assert named == [f"s{i:02d}" for i in range(10)]
    assert sorted(found[12]) == ["s00", "s01"]
