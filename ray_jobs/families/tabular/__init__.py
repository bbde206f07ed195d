"""Tables: one row per case; what is known of it goes in, how it turns out comes out.

One of two outcomes, one of several classes, or a number, of any table.
"""

from __future__ import annotations

from ray_jobs.families import Family, Protocol, Words
from ray_jobs.families.tabular import (
    batch,
    formats,
    importance,
    loss,
    recipes,
    rules,
    sample,
    search,
    slices,
    vocabulary,
)
from ray_jobs.families.tabular.api import API
from ray_jobs.families.tabular.networks import SPECS, Boosting
from ray_jobs.families.tabular.vocabulary import Vocabulary

PROTOCOL = Protocol(
    words="each test row is predicted from its own columns; no row of its group was trained on",
    rows="rows",
)

FAMILY = Family(
    name="tabular",
    title="Tables",
    protocol=lambda _: PROTOCOL,
    words=Words(
        use="It is meant to show early who may need help, and what to look at; a person decides."
        "\n\nIt is **not** meant for decisions about people that nobody reviews, nor for cases "
        "unlike its data.",
        limits=(
            "The figures describe cases like those in the data, at the time it was taken.",
            "What predicts is not what causes: changing a column need not change the outcome.",
            "A column that will not be known in time makes figures that nobody can keep.",
        ),
    ),
    units=formats.units,
    read=formats.read,
    clean=rules.clean,
    group="group",
    label="label",
    target=vocabulary.target,
    targets=vocabulary.targets,
    specs=SPECS,
    baseline=Boosting,
    recipes=recipes.RECIPES,
    spaces=search.SPACES,
    vocabulary=Vocabulary.of,
    vocabulary_from_json=Vocabulary.from_json,
    example=batch.Row,
    examples=batch.Rows,
    cost=batch.cost,
    collate=batch.collate,
    loss=loss.loss,
    weight=loss.weight,
    outcomes=batch.outcomes,
    slices=slices.slices,
    shuffled=importance.shuffled,
    sample=sample.sample,
    api=API,
    whole=True,
    ordered=False,
)
