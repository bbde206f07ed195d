"""Knowledge tracing: how likely is each next answer, and how well is each skill mastered.

A learner's history of answers goes in; the probability that the next answer
is correct comes out, for any item, seen or unseen.
"""

from __future__ import annotations

from ray_jobs.families import Family, Words
from ray_jobs.families.knowledge import (
    batch,
    formats,
    loss,
    mastery,
    protocol,
    recipes,
    rules,
    sample,
    search,
    slices,
)
from ray_jobs.families.knowledge.api import API
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.families.knowledge.vocabulary import Vocabulary

FAMILY = Family(
    name="knowledge",
    title="Knowledge tracing",
    protocol=protocol.protocol,
    words=Words(
        use="It is meant to support practice: to choose what comes next, and to show where "
        "help is due.\n\nIt is **not** meant for grading, admission, or any decision about a "
        "person that nobody reviews; nor for learners or content unlike its data.",
        limits=(
            "The figures describe learners like those in the data, at the time it was taken.",
            "A probability is about a group of like cases; for one learner it may be wrong.",
            "It learned what was practised, not what was taught elsewhere.",
            "Whether it is fair between groups of learners is known only where a slice names them.",
        ),
        ceiling="a Bayes filter that knows the simulated world and sees the same histories",
    ),
    read=formats.read,
    clean=rules.clean,
    group="learner",
    label="correct",
    keys=("item", "skills"),
    target=loss.target,
    targets=loss.targets,
    specs=SPECS,
    baseline=Rasch,
    recipes=recipes.RECIPES,
    spaces=search.SPACES,
    vocabulary=Vocabulary.of,
    vocabulary_from_json=Vocabulary.from_json,
    extended=Vocabulary.extended,
    example=batch.History,
    examples=batch.examples,
    cost=batch.cost,
    collate=batch.collate,
    loss=loss.loss,
    weight=loss.weight,
    outcomes=batch.outcomes,
    slices=slices.slices,
    sample=sample.sample,
    ceiling=sample.ceiling,
    api=API,
    profiles={"mastery": mastery.table},
    showcase=True,
)
