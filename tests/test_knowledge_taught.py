"""Behaviour of models that really learnt, on thousands of pasts of learners they never met.

Names and company change nothing, one more right answer lowers no mastery, and the
answers that an explanation names are those that matter.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from ray_jobs.artifact import Artifact
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.networks.logistic import OF_SKILL
from ray_jobs.families.knowledge.reasons import TOLD
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.predictor import predict
from ray_jobs.recipe import Budget
from tests.taught_parts import (
    KNOWLEDGE,
    SMALL,
    learnt,
    moved,
    parts,
    predicted,
    probes,
    rises,
    taught,
)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(600)]

PROBES, EXPLAINED = 2000, 120
ROUNDING = 1e-6
BRIEF = Budget(epochs=2, batch_cost=1024)

# What takes longest to learn waits for `make test-all`.
SLOW = dict.fromkeys(("attention", "blend"), pytest.mark.slow)
each_spec = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW.get(name, ())) for name in sorted(SPECS)]
)
NETWORKS = ("lstm", "attention", "blend")
each_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW.get(name, ())) for name in NETWORKS]
)


# Names.


@each_spec
def test_training_again_under_other_names_makes_the_same_model(name: str) -> None:
    """Bit by bit, since ids follow the order of first sight, which a renaming leaves as it is.

    Only names change here, and not the order of rows. A log that is sorted by pseudonym
    has its learners elsewhere under other names, and so other batches; skills keep their
    order, since a set is sorted, and so its first sight.
    """
    items = {item: f"{9999 - n} of a book" for n, item in enumerate(parts().truth.items)}

    def renamed(table: pl.DataFrame) -> pl.DataFrame:
        return table.with_columns(
            pl.col("item").replace_strict(items),
            pl.col("skills").list.eval(pl.format("skill {}", pl.element())),
            learner=pl.format("{} of 5b", pl.col("learner").str.reverse()),
        )

    train, held_out = parts().train.head(3000), parts().held_out.head(3000)
    model = learnt(SPECS[name](**SMALL[name]), train, held_out, BRIEF)
    other = learnt(SPECS[name](**SMALL[name]), renamed(train), renamed(held_out), BRIEF)
    assert set(model.vocabulary.items).isdisjoint(other.vocabulary.items)
    for ours, theirs in zip(_all(model, held_out), _all(other, renamed(held_out)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@each_spec
def test_an_id_is_only_a_place(name: str) -> None:
    """Items and skills first seen in another order are other rows of the same weights.

    Trained from the start they would begin with other random weights, which is another
    seed, and no renaming.
    """
    model, random = taught(name), np.random.default_rng(0)
    words = model.vocabulary
    items, skills = (
        np.concatenate([[0, 1], 2 + random.permutation(len(names))])
        for names in (words.items, words.skills)
    )
    turned = Vocabulary(
        tuple(words.items[i - 2] for i in items[2:]), tuple(words.skills[s - 2] for s in skills[2:])
    )
    module = model.spec.build(turned)
    weights = {
        key: _rows_moved(key, tensor, items, skills)
        for key, tensor in model.module.state_dict().items()
    }
    module.load_state_dict(weights)
    other = replace(model, vocabulary=turned, module=module.eval())
    there = predicted(other, [probe.body for probe in probes(PROBES)])
    np.testing.assert_allclose(there, usual(name), atol=1e-5, rtol=0)


@cache
def usual(name: str) -> NDArray[np.float64]:
    """What is said of every probe."""
    return predicted(taught(name), [probe.body for probe in probes(PROBES)])


def _rows_moved(
    key: str, tensor: torch.Tensor, items: NDArray[np.int64], skills: NDArray[np.int64]
) -> torch.Tensor:
    """A tensor whose rows of items or of skills stand in another order."""
    last = ".".join(key.split(".")[-2:])
    if key == "terms":  # of the logistic regression: of items, of skills, of all
        end = len(items) + len(OF_SKILL) * len(skills)
        of_skills = tensor[len(items) : end].view(len(skills), -1)
        return torch.cat([tensor[: len(items)][items], of_skills[skills].flatten(), tensor[end:]])
    if last in {"item.weight", "difficulty.weight", "question.neighbours", "item_difficulty"}:
        return tensor[items]
    if last in {"skill.weight", "skill_difficulty"}:
        return tensor[skills]
    return tensor


@each_spec
def test_a_learner_is_predicted_alike_under_any_name_in_any_order(name: str) -> None:
    groups = parts().held_out.partition_by("learner", maintain_order=True)
    turned = [
        rows.with_columns(learner=pl.lit(f"pseudonym {n}")) for n, rows in enumerate(groups[::-1])
    ]
    there, here = (_all(taught(name), pl.concat(tables)) for tables in (turned, groups))
    for ours, theirs in zip(here, there[::-1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def _all(model: Artifact, table: pl.DataFrame) -> list[NDArray[np.float32]]:
    return predict(model, KNOWLEDGE.examples(table, model.vocabulary))


# Company.


@each_spec
def test_what_others_in_the_batch_answered_changes_nothing(name: str) -> None:
    def turned(body: dict[str, Any]) -> dict[str, Any]:
        history = [{**answer, "correct": 1.0 - answer["correct"]} for answer in body["history"]]
        return {**body, "history": history}

    # As long as they were, so that all batches are of the same learners.
    bodies = [probe.body for probe in probes(PROBES)]
    mixed = [turned(body) if number % 2 else body for number, body in enumerate(bodies)]
    apart = np.abs(predicted(taught(name), mixed) - usual(name))
    assert apart[::2].max() <= ROUNDING
    assert np.median(apart[1::2]) > 0.01, "the others were heard at all"


# One more right answer.


@pytest.mark.parametrize("name", ["rasch", "logistic"])
def test_one_more_right_answer_never_lowers_its_skills(name: str) -> None:
    assert risen(name).min() >= -ROUNDING


@cache
def risen(name: str) -> NDArray[np.float64]:
    """What one more right answer does to the skills of every probe."""
    return rises(taught(name), probes(PROBES))


@each_network
def test_one_more_right_answer_lowers_its_skills_in_hardly_any_case(name: str) -> None:
    """The signs of a network are not bound, as those of the logistic regression are.

    Without a hint in training it is 1 to 4 of a hundred.
    """
    assert (risen(name) < -ROUNDING).mean() < 0.02


@each_network
def test_one_more_right_answer_that_is_news_raises_its_skills(name: str) -> None:
    """Where a network errs, the skill is all but mastered, and no model has it rise by much."""
    news = risen("logistic") > np.median(risen("logistic"))
    assert (risen(name)[news] < -ROUNDING).mean() < 0.005
    assert np.median(risen(name)) > 0.05


# Explanations.


@each_spec
def test_answers_that_an_explanation_names_move_a_prediction_more_than_others(name: str) -> None:
    asked = probes(EXPLAINED, shortest=2 * TOLD)
    (moves,) = moved(taught(name), asked, TOLD)
    means = moves.means()
    assert means["named"].low > means["random"].high
