"""How near networks come to the best that can be known: `python -m tests.bench.ceiling [RECIPE]`.

Learners of a simulated district that no network has seen: every answer is predicted by a
network, and by the Bayes filter that knows items and laws and sees the same histories. Then
what each says of the skill that a learner was to practise next, against the truth: how likely
is a right answer to a typical item of it, which is what `v1/mastery` tells. A network learns
the items and laws from a district of `--learners`, so the more of them, the nearer it comes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from ray_jobs.allocator import keep_freed
from ray_jobs.artifact import Artifact
from ray_jobs.families import family, recipe
from ray_jobs.families.knowledge import bayes, mastery
from ray_jobs.families.knowledge.sample import SCHOOL
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import Truth, chance
from ray_jobs.metrics.binary import prepared_auc
from ray_jobs.predictor import predict
from tests.taught_parts import learnt

KNOWLEDGE = family("knowledge")
LEARNERS = 24_000
TOLD_OF = 1_000  # learners; all others are learnt from, or validated with
SEEDS = (0, 1, 2)

Floats = NDArray[np.float64]


def main(names: Sequence[str], learners: int) -> None:
    """Print a line for each seed of the world and recipe."""
    torch.set_num_threads(2)
    keep_freed()
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            truth = simulate(replace(SCHOOL, learners=learners, seed=seed), Path(folder))
        table = truth.table()
        test = table.filter(pl.col("bucket") < TOLD_OF)
        best = bayes.filtered(truth, test)
        before, abilities = _to_practise(truth, test)
        skills = _next(before)["skill"].to_list()
        right = typical(truth, skills, abilities)
        known = _ranked(typical(truth, skills, _by_filter(truth, before)), right)
        for name in names:
            model = trained(name, table.filter(pl.col("bucket") >= TOLD_OF))
            told = np.concatenate(predict(model, KNOWLEDGE.examples(test, model.vocabulary)))
            auc, ceiling = (_auc(test, one) for one in (told.astype(np.float64), best))
            found = _ranked(_by_model(model, before), right)
            print(
                f"world {seed} of {learners:,}, {name}: AUC {auc:.4f}, of the filter {ceiling:.4f} "
                f"({auc - ceiling:+.4f}) on {len(test):,} answers; Spearman of mastery with the "
                f"truth {found:.3f}, of the filter {known:.3f} ({found / known:.3f} of it) on "
                f"{len(abilities):,} learners; {_held(model, before, right):.3f} of them within "
                "their interval",
                flush=True,
            )


def trained(name: str, table: pl.DataFrame) -> Artifact:
    """A recipe's network, validated on every tenth learner."""
    asked, held_out = recipe(name), pl.col("bucket") % 10 == 0
    return learnt(asked.spec, table.filter(~held_out), table.filter(held_out), asked.budget)


def typical(truth: Truth, skills: Sequence[str], abilities: Floats) -> Floats:
    """Chance (L,) that who has this ability in a skill is right on an item of that skill alone."""
    lone = {
        skill: np.flatnonzero(truth.item_skills[:, s] & (truth.item_skills.sum(axis=1) == 1))
        for s, skill in enumerate(truth.skills)
    }
    told = [
        chance(np.array([ability]), truth.difficulty[items], truth.discrimination[items]).mean()
        for ability, items in zip(abilities, map(lone.__getitem__, skills), strict=True)
    ]
    return np.array(told)


def _to_practise(truth: Truth, test: pl.DataFrame) -> tuple[pl.DataFrame, Floats]:
    """The answers before each learner's last one in a lone skill practised before, with that skill.

    Also what the learner could do in truth just then, in logits.
    """
    skill = pl.col("skills").list.first()
    rows = test.with_columns(
        truth=truth.answers.filter(pl.col("learner").is_in(test["learner"].unique().implode()))[
            "probability"
        ],
        step=pl.int_range(pl.len()).over("learner"),
        practised=skill.cum_count().over("learner", skill),
    )
    last = (
        rows.filter(pl.col("skills").list.len() == 1, pl.col("practised") > 1)
        .group_by("learner", maintain_order=True)
        .last()
        .select("learner", "truth", "item", until="step", next=skill)
    )
    number = {item: i for i, item in enumerate(truth.items)}
    at = last["item"].replace_strict(number, return_dtype=pl.Int64).to_numpy()
    odds = 2.0 * np.arctanh(2.0 * last["truth"].to_numpy() - 1.0)
    before = rows.join(last.select("learner", "until", "next"), on="learner", maintain_order="left")
    before = before.filter(pl.col("step") < pl.col("until"))
    return before, truth.difficulty[at] + odds / truth.discrimination[at]


def _next(before: pl.DataFrame) -> pl.DataFrame:
    return before.group_by("learner", maintain_order=True).agg(skill=pl.col("next").first())


def _by_filter(truth: Truth, before: pl.DataFrame) -> Floats:
    found = bayes.mastery(truth, before.select(truth.table().columns))
    long = found.unpivot(index="learner", variable_name="skill", value_name="level")
    return _levels(before, long)


def _by_model(model: Artifact, before: pl.DataFrame) -> Floats:
    return _levels(before, mastery.table(model, before))


def _held(model: Artifact, before: pl.DataFrame, right: Floats) -> float:
    """The share of learners whose true level lies in the interval that `v1/mastery` tells."""
    verb, held = mastery.VERB, []
    answers = before.group_by("learner", maintain_order=True)
    for truth, (_, rows) in zip(right, answers, strict=True):
        history = rows.select("item", "skills", "correct", "time").to_dicts()
        body = {"history": history, "skills": [rows["next"][0]], "intervals": True}
        request = verb.request.model_validate(body)
        told = predict(model, verb.examples(request, model.vocabulary))
        (of_skill,) = verb.answer(request, told, model.vocabulary)["mastery"]
        within = of_skill["interval"]
        held.append(within is not None and within["low"] <= truth <= within["high"])
    return float(np.mean(held))


def _levels(before: pl.DataFrame, long: pl.DataFrame) -> Floats:
    joined = _next(before).join(long, on=("learner", "skill"), how="left", maintain_order="left")
    assert joined["level"].null_count() == 0
    return joined["level"].cast(pl.Float64).to_numpy()


def _ranked(told: Sequence[float] | Floats, truth: Floats) -> float:
    """Spearman's correlation."""
    pairs = pl.DataFrame({"told": told, "truth": truth})
    found: float = pairs.select(pl.corr("told", "truth", method="spearman")).item()
    return found


def _auc(test: pl.DataFrame, chances: Floats) -> float:
    right = test["correct"].cast(pl.Float64).to_numpy()
    return float(prepared_auc(right, chances)(np.ones(len(right))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ceiling")
    parser.add_argument("recipes", nargs="*", default=["knowledge"])
    parser.add_argument("--learners", type=int, default=LEARNERS)
    asked = parser.parse_args()
    main(asked.recipes, asked.learners)
