"""Knowledge tracing: how likely is each next answer, and how well is each skill mastered.

A learner's history of answers goes in; the probability that the next answer
is correct comes out, for any item, seen or unseen.
"""

from __future__ import annotations

from ray_jobs.families import Family
from ray_jobs.families.knowledge import api, batch, formats, loss, recipes, rules, sample, slices
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.families.knowledge.vocabulary import Vocabulary

FAMILY = Family(
    name="knowledge",
    title="Knowledge tracing",
    protocol="N: one row per answer, its skills kept as a set; each answer of every test "
    "learner is predicted from strictly earlier answers",
    read=formats.read,
    clean=rules.clean,
    group="learner",
    target="correct",
    headline="auc",
    specs=SPECS,
    baseline=Rasch,
    recipes=recipes.RECIPES,
    vocabulary=Vocabulary.of,
    vocabulary_from_json=Vocabulary.from_json,
    examples=batch.examples,
    cost=batch.cost,
    collate=batch.collate,
    loss=loss.loss,
    weight=loss.weight,
    outcomes=batch.outcomes,
    slices=slices.slices,
    sample=sample.sample,
    ceiling=sample.ceiling,
    api=api,
)
