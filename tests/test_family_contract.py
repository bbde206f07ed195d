"""What every family promises the machinery, told by its record alone: no family is named here.

A folder added to `ray_jobs/families` is held to this by being there, each of its specs too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from ray_jobs import artifact
from ray_jobs.artifact import Artifact
from ray_jobs.data import clean
from ray_jobs.data.tables import read_parquet
from ray_jobs.families import Family, families, family
from ray_jobs.metrics import KINDS
from ray_jobs.predictor import predict
from ray_jobs.training import shards
from ray_jobs.training.shards import Shards
from tests.family_parts import MODELS, contents, fresh, prepared, sampled, small, taught

LEARNT = {"auc": 0.6, "r2": 0.1}  # figures that nobody has by chance

each_family = pytest.mark.parametrize("kind", families())
each_model = pytest.mark.parametrize(("kind", "name"), MODELS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on many threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def predicted(model: Artifact, table: pl.DataFrame, **how: int) -> NDArray[np.float32]:
    """One prediction per scored row, in the order of the table."""
    return np.concatenate(predict(model, model.family.examples(table, model.vocabulary), **how))


def batch_of(model: Artifact, table: pl.DataFrame) -> tuple[Any, torch.Tensor]:
    batch = model.family.collate(model.family.examples(table, model.vocabulary), model.vocabulary)
    with torch.inference_mode():
        return batch, model.module(batch)


def groups(table: pl.DataFrame, of: Family) -> list[pl.DataFrame]:
    return table.partition_by(of.group, maintain_order=True)


# The record.


@each_family
def test_a_record_speaks_of_things_that_there_are(kind: str) -> None:
    of, world = family(kind), sampled(kind)
    assert of.name == kind
    assert {of.group, of.label, *of.keys, "scored", "bucket", "split"} <= set(world.test.columns)
    assert of.specs[of.baseline().name] is type(of.baseline())
    assert all(name == spec.name for name, spec in of.specs.items())


@each_family
def test_recipes_begin_with_smoke_and_leave_no_architecture_out(kind: str) -> None:
    of = family(kind)
    made = {name: recipe() for name, recipe in of.recipes.items()}
    first = next(iter(made.values()))
    assert (first.name, first.spec) == (f"{kind}-smoke", of.baseline())
    assert {kind, f"{kind}-demo"} < set(made), "the default goes by the family's own name"
    assert {type(recipe.spec) for recipe in made.values()} == set(of.specs.values())
    services = Counter(recipe.service for recipe in made.values())
    assert services[made[f"{kind}-demo"].service] == 1, "the demo is a service of its own"
    vocabulary = of.vocabulary([sampled(kind).train])
    example = of.examples(groups(sampled(kind).test, of)[0], vocabulary)
    for name, recipe in made.items():
        assert (recipe.name, recipe.family) == (name, kind)
        assert recipe.workers == 1 or not hasattr(recipe.spec, "fit"), "fits in one place"
        spec: Any = recipe.spec
        module = spec.build(vocabulary).eval()
        if not hasattr(spec, "fit"):  # else it may know nothing before it is
            predictions = predict(Artifact(of, spec, vocabulary, module, {}, ""), example)
            assert np.isfinite(predictions[0]).all()


# The data.


@each_family
def test_a_sample_follows_from_its_seed(kind: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        data = family(kind).sample(tmp_path / str(seed), seed)
        assert Path(data).is_relative_to(tmp_path / str(seed))
    assert contents(tmp_path / "0") == sampled(kind).files
    assert contents(tmp_path / "1") != sampled(kind).files


@each_family
def test_in_how_many_shares_a_log_is_cleaned_is_nothing_to_its_table(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prepared(kind, tmp_path / "one")
    monkeypatch.setattr(clean, "SHARE_ROWS", one.read // 4)
    many = prepared(kind, tmp_path / "many")
    assert many.counts == one.counts
    order = [family(kind).group, "position"]  # groups may stand in another
    rows = [read_parquet(table.table).sort(order) for table in (many, one)]
    assert rows[0].equals(rows[1])


@each_family
def test_a_vocabulary_comes_back_from_json_and_knows_the_train_split_alone(kind: str) -> None:
    of, world = family(kind), sampled(kind)
    vocabulary = of.vocabulary([world.train])
    again = of.vocabulary_from_json(orjson.loads(orjson.dumps(vocabulary.as_json())))
    assert again == vocabulary == of.vocabulary([world.train.clone()])
    mixed = world.train.with_columns(pl.col(of.label).shuffle(seed=0))
    assert of.vocabulary([mixed]) == vocabulary, "which row has which outcome is not read"
    assert of.vocabulary([strange(world.train, of)]) != vocabulary


@each_family
def test_an_example_costs_what_it_holds_and_more_rows_cost_more(kind: str) -> None:
    of, world = family(kind), sampled(kind)
    vocabulary = of.vocabulary([world.train])
    costs = [
        sum(map(of.cost, of.examples(world.test.head(n), vocabulary)))
        for n in range(1, min(40, len(world.test)))
    ]
    assert costs[0] >= 1
    assert all(type(cost) is int for cost in costs)
    assert all(less < more for less, more in pairwise(costs))


@each_family
def test_examples_of_what_a_loop_trains_come_back_from_a_disk_and_so_does_their_batch(
    kind: str, tmp_path: Path
) -> None:
    of, table = family(kind), sampled(kind).test
    if all(hasattr(spec, "fit") for spec in of.specs.values()):
        assert of.example is None, "nobody asks for it"
        return
    vocabulary = of.vocabulary([sampled(kind).train])
    first, *rest = groups(table, of)
    lots = [of.examples(part, vocabulary) for part in (first, pl.concat(rest))]
    shards.pack(tmp_path / "packed", lots, of.cost)
    assert of.example is not None
    found, made = Shards(tmp_path / "packed", of.example), [one for lot in lots for one in lot]
    assert {type(one) for one in made} == {of.example}
    assert found.costs.tolist() == [of.cost(one) for one in made]
    known, again = (of.collate(list(given), vocabulary) for given in (made, found))
    for field in fields(known):
        left, right = (getattr(batch, field.name) for batch in (known, again))
        assert torch.equal(left, right) if torch.is_tensor(left) else left == right, field.name


@each_family
def test_each_row_lies_in_one_slice_or_says_why_not(kind: str) -> None:
    of, world = family(kind), sampled(kind)
    parts = of.slices(world.test, of.vocabulary([world.train]))
    assert len(parts) == len(world.test)
    plain = [name for name, dtype in parts.schema.items() if not isinstance(dtype, pl.List)]
    assert plain
    assert parts.select(plain).null_count().sum_horizontal().item() == 0
    mixed = world.test.with_columns(pl.col(of.label).shuffle(seed=0))
    turned = of.slices(mixed, of.vocabulary([world.train]))
    assert turned.equals(parts), "no outcome decides where its row is counted"


# The models.


@each_model
def test_a_seed_decides_a_network_and_another_makes_another(kind: str, name: str) -> None:
    one, again, other = (fresh(kind, name, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, again[key]) for key, tensor in one.items())
    drawn = any(True for _ in fresh(kind, name).parameters())
    assert not drawn or any(not torch.equal(tensor, other[key]) for key, tensor in one.items())


@each_model
def test_a_group_is_predicted_alike_alone_in_company_and_in_the_order_of_the_table(
    kind: str, name: str
) -> None:
    model, table = taught(kind, name), sampled(kind).test
    together = predicted(model, table, batch_cost=10**9)
    np.testing.assert_allclose(predicted(model, table, batch_cost=1), together, atol=1e-5)
    apart = [predicted(model, part) for part in groups(table, model.family)]
    np.testing.assert_allclose(np.concatenate(apart), together, atol=1e-5)
    assert len(together) == table["scored"].sum()


@each_model
def test_loss_and_weight_add_up_over_scored_rows_however_they_are_divided(
    kind: str, name: str
) -> None:
    model, table = taught(kind, name), sampled(kind).test
    of, parts = model.family, groups(sampled(kind).test, model.family)
    odd = pl.int_range(pl.len()) % 2 == 1
    divided: dict[str, Sequence[pl.DataFrame]] = {
        "whole": [table],
        "by group": [pl.concat(parts[::2]), pl.concat(parts[1::2])],
        "by row": [table.with_columns(scored=odd), table.with_columns(scored=~odd)],
    }
    for how, tables in divided.items():
        batches = [batch_of(model, t) for t in tables]
        weight = sum(of.weight(batch).item() for batch, _ in batches)
        assert weight == table["scored"].sum(), how
        total = sum(of.loss(outputs, batch).item() for batch, outputs in batches)
        expected = of.loss(*batch_of(model, table)[::-1]).item()
        assert total == pytest.approx(expected, rel=1e-4), how
    none = batch_of(model, table.with_columns(scored=pl.lit(value=False)))
    assert (of.weight(none[0]).item(), of.loss(none[1], none[0]).item()) == (0, 0)


@each_model
def test_a_model_comes_back_from_its_artifact_to_the_same_predictions(
    kind: str, name: str, tmp_path: Path
) -> None:
    model, table = taught(kind, name), sampled(kind).test
    parts: dict[str, Any] = {"vocabulary": model.vocabulary, "module": model.module, "about": {}}
    artifact.write(tmp_path, kind=kind, spec=small(kind, name), **parts)
    loaded = artifact.read(tmp_path)
    assert loaded.spec == small(kind, name)
    assert np.array_equal(predicted(loaded, table), predicted(model, table))


def strange(table: pl.DataFrame, of: Family) -> pl.DataFrame:
    """The same rows, but every name and amount in them is one that nobody has met."""
    kept = {of.group, of.label, "split"}
    names = (pl.lit("never met ") + pl.col(pl.String).exclude(kept)).name.keep()
    amounts = pl.col(pl.Float64).exclude(kept) + 1e6
    assert table.with_columns(names).columns == table.columns
    lists = [n for n, t in table.schema.items() if t == pl.List(pl.String) and n not in kept]
    inside = [pl.col(n).list.eval(pl.lit("never met ") + pl.element()) for n in lists]
    return table.with_columns(names, amounts, *inside)


@each_model
def test_what_nobody_has_met_is_served(kind: str, name: str) -> None:
    model, table = taught(kind, name), sampled(kind).test
    odd = strange(table, model.family)
    assert not odd.equals(table)
    predictions = predicted(model, odd)
    assert len(predictions) == odd["scored"].sum()
    assert np.isfinite(predictions).all()
    if model.family.target(model.vocabulary).kind != "number":
        assert ((predictions >= 0) & (predictions <= 1)).all()


@each_model
def test_every_trained_weight_has_a_gradient(kind: str, name: str) -> None:
    model = taught(kind, name)
    module = fresh(kind, name).train()
    batch, _ = batch_of(replace(model, module=module), sampled(kind).train)
    torch.manual_seed(0)
    module.zero_grad()
    if any(p.requires_grad for p in module.parameters()):
        torch.autograd.backward(model.family.loss(module(batch), batch))
    still = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@each_model
def test_a_model_learns_and_nothing_beats_the_best_possible(kind: str, name: str) -> None:
    model, world = taught(kind, name), sampled(kind)
    truth = model.family.targets(world.test, model.vocabulary)[world.test["scored"].to_numpy()]
    learnt = KINDS[model.family.target(model.vocabulary).kind]
    figure, limit = learnt.metrics[learnt.headline], LEARNT[learnt.headline]
    found = figure(truth, predicted(model, world.test))
    assert found > limit
    if world.ceiling is not None:
        assert len(world.ceiling) == len(world.test)
        best = world.ceiling[world.test["scored"].to_numpy()]
        assert figure(truth, best) > found
