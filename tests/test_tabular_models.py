"""What each model of tables promises beyond the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from ray_jobs.errors import UsageError
from ray_jobs.families.tabular import api, reasons
from ray_jobs.families.tabular.batch import Batch, Rows
from ray_jobs.families.tabular.networks import Boosting, Forest, Linear, Mlp, Stack
from ray_jobs.families.tabular.networks.fitting import FOLDS, Known, predicted, whole
from ray_jobs.families.tabular.networks.stack import weighted
from ray_jobs.families.tabular.networks.trees import Trees
from ray_jobs.families.tabular.vocabulary import Vocabulary
from ray_jobs.target import Array
from tests.tabular_parts import cleaned, written

pytestmark = pytest.mark.usefixtures("one_thread")

N = 400
REGION_EFFECT = {"north": -1.0, "south": 0.0, "west": 1.0}


def cases(folder: Path, kind: str, seed: int = 0) -> pl.DataFrame:
    """Cases with a number, a category and noise; the label is a number, two or three outcomes."""
    drawn = np.random.default_rng(seed)
    hours, noise = drawn.normal(5, 2, N), drawn.normal(size=N)
    region = drawn.choice(list(REGION_EFFECT), N)
    score = (hours - 5) / 2 + np.array([REGION_EFFECT[r] for r in region]) + 0.3 * noise
    labels: dict[str, list[Any]] = {
        "number": score.tolist(),
        "binary": np.where(score > 0, "pass", "fail").tolist(),
        "classes": np.select([score < -0.7, score < 0.7], ["low", "middle"], "high").tolist(),
    }
    columns = {"hours": hours, "region": region, "noise": drawn.normal(size=N)}
    told = {name: values.tolist() for name, values in columns.items()}
    return cleaned(written(folder / "c.csv", {**told, "label": labels[kind]})).table


def fitted(spec: Any, table: pl.DataFrame) -> tuple[Any, Vocabulary, Batch]:
    vocabulary = Vocabulary.of([table])
    module = spec.fit(table, table.head(0), vocabulary)
    return module, vocabulary, whole(Rows(table, vocabulary), vocabulary)


SPECS = [Linear(), Boosting(most=200), Forest(trees=40), Stack(repeats=1)]


@pytest.mark.parametrize("kind", ["number", "binary", "classes"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_each_closed_form_learns_each_kind_of_label(spec: Any, kind: str, tmp_path: Path) -> None:
    module, vocabulary, _ = fitted(spec, cases(tmp_path, kind))
    test = Rows(cases(tmp_path, kind, seed=1), vocabulary)
    told = predicted(module, whole(test, vocabulary))
    if kind == "number":
        assert np.corrcoef(told, test.target)[0, 1] > 0.9
        return
    shares = np.stack([1 - told, told], axis=1) if kind == "binary" else told
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert (shares.argmax(axis=1) == test.target).mean() > 0.75


def test_trees_are_kept_in_a_text_that_lightgbm_reads(tmp_path: Path) -> None:
    import lightgbm

    module, _, batch = fitted(Boosting(most=30), cases(tmp_path, "binary"))
    (text,) = module.files().values()
    assert text.startswith(b"tree\nversion=")
    booster = lightgbm.Booster(model_str=text.decode())
    again = Trees()
    again.load_files(module.files())
    assert booster.num_trees() >= 1
    torch.testing.assert_close(again(batch).values, module(batch).values, rtol=0, atol=0)


def test_a_forest_is_the_mean_of_its_trees(tmp_path: Path) -> None:
    module, _, batch = fitted(Forest(trees=10), cases(tmp_path, "number"))
    from ray_jobs.families.tabular.networks.trees import inputs

    one_by_one = [
        module.booster.predict(inputs(batch), start_iteration=i, num_iteration=1) for i in range(10)
    ]
    told = module(batch).values[:, 0].numpy()
    np.testing.assert_allclose(told, np.mean(one_by_one, axis=0), rtol=1e-4)


def test_a_stack_trusts_who_is_right_and_its_weights_sum_to_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary.of([cases(tmp_path, "number")])
    truth = rng.normal(size=500)
    told: list[Array] = [truth + rng.normal(0, 0.1, 500), rng.normal(size=500)]
    weights = weighted(told, truth, vocabulary)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.9
    binary = Vocabulary.of([cases(tmp_path, "binary")])
    outcome = (rng.random(500) < 0.5).astype(float)
    knows, guesses = np.where(outcome == 1, 0.9, 0.1), np.full(500, 0.5)
    weights = weighted([guesses, knows], outcome, binary)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > 0.9


def test_with_few_rows_a_stack_stays_near_even_weights(tmp_path: Path) -> None:
    vocabulary = Vocabulary.of([cases(tmp_path, "number")])
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    alike: list[Array] = [truth + rng.normal(0, 1, 400) for _ in range(4)]
    weights = weighted(alike, truth, vocabulary)
    assert np.abs(weights - 0.25).max() < 0.1


def test_folds_are_spans_of_time_where_times_are_known(tmp_path: Path) -> None:
    table = cases(tmp_path, "binary")
    vocabulary = Vocabulary.of([table])
    timed = table.with_columns(time=pl.int_range(pl.len()).shuffle(seed=3).cast(pl.Float64))
    known = Known.of([timed], vocabulary)
    in_time = known.fold[np.argsort(timed["time"].to_numpy())]
    assert (np.diff(in_time) >= 0).all()
    assert np.bincount(in_time).tolist() == [N // FOLDS] * FOLDS
    assert len(Known.divided([timed], vocabulary, 3)) == 1, "there is one way to divide time"
    drawn = Known.divided([table], vocabulary, 3)
    assert len(drawn) == 3
    assert (np.diff(drawn[0].fold) != 0).mean() > 0.5


def test_a_group_lies_in_one_fold(tmp_path: Path) -> None:
    table = cases(tmp_path, "binary").with_columns(group=(pl.int_range(pl.len()) % 30).cast(str))
    for part in (table, table.with_columns(time=pl.int_range(pl.len()).cast(pl.Float64))):
        known = Known.of([part], Vocabulary.of([part]))
        by_group = pl.DataFrame({"group": part["group"], "fold": known.fold}).group_by("group")
        assert by_group.agg(pl.col("fold").n_unique())["fold"].max() == 1


@pytest.mark.parametrize(
    ("spec", "values"),
    [(Boosting, {"leaves": 1}), (Boosting, {"rate": 0.0}), (Forest, {"rows": 1.0}),
     (Linear, {"lasso": 0.0}), (Stack, {"repeats": 0}), (Mlp, {"heads": 0})],
)  # fmt: skip
def test_settings_that_make_no_model_are_refused(spec: Any, values: dict[str, float]) -> None:
    (name,) = values
    with pytest.raises(UsageError, match=f"spec.{name}="):
        spec(**values)


@pytest.mark.parametrize("kind", ["number", "binary", "classes"])
def test_reasons_add_up_and_leave_out_what_the_model_does_not_look_at(
    kind: str, tmp_path: Path
) -> None:
    table = cases(tmp_path, kind)
    module, vocabulary, _ = fitted(Boosting(most=60), table)
    told = {"hours": 9.0, "region": "west", "noise": 0.0}
    examples = reasons.examples(told, vocabulary)
    assert len(examples) == reasons.variants(vocabulary)
    from ray_jobs.families.tabular.batch import collate, outcomes

    batch = collate(examples, vocabulary)
    values = outcomes(module(batch), batch)
    found = {r["feature"]: r["effect"] for r in reasons.reasons(told, values, vocabulary)}
    every = np.concatenate(values).astype(float)
    walks = (every if kind != "classes" else every[:, every[-1].argmax()]).reshape(
        reasons.ORDERS, -1
    )
    assert sum(found.values()) == pytest.approx((walks[:, -1] - walks[:, 0]).mean(), abs=1e-5)
    assert abs(found["noise"]) < 0.25 * max(abs(found["hours"]), abs(found["region"]))
    again = reasons.reasons(told, values, vocabulary)
    assert {r["feature"]: r["effect"] for r in again} == found


def test_reasons_point_the_way_that_the_truth_does(tmp_path: Path) -> None:
    table = cases(tmp_path, "number")
    module, vocabulary, _ = fitted(Linear(), table)
    from ray_jobs.families.tabular.batch import collate, outcomes

    def effects(told: dict[str, Any]) -> dict[str, float]:
        batch = collate(reasons.examples(told, vocabulary), vocabulary)
        found = reasons.reasons(told, outcomes(module(batch), batch), vocabulary)
        return {r["feature"]: r["effect"] for r in found}

    many, few = (effects({"hours": h, "region": "north", "noise": 0.0}) for h in (9.0, 1.0))
    assert many["hours"] > 1 > -1 > few["hours"]
    assert many["region"] < 0


def test_a_request_names_what_it_knows_and_a_misspelt_column_is_refused(tmp_path: Path) -> None:
    vocabulary = Vocabulary.of([cases(tmp_path, "binary")])
    request = api.verbs(vocabulary)["predict"].request
    assert request.model_validate({"features": {"hours": 3, "region": None}})
    with pytest.raises(ValueError, match="houres"):
        request.model_validate({"features": {"houres": 3}})
    schema = request.model_json_schema()
    assert set(schema["$defs"]["Features"]["properties"]) == {"hours", "region", "noise"}
    assert "north" in schema["$defs"]["Features"]["properties"]["region"]["description"]
