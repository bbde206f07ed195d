"""What one run of the pipeline is told, and what follows from it: keys, lineage, folders."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ray_jobs import code, manifest
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.families import Family, Protocol, family
from ray_jobs.privacy import Key, load_key
from ray_jobs.recipe import Budget, Recipe, as_dict
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings


@dataclass(frozen=True)
class Run:
    """A resolved recipe and the installation it runs on."""

    recipe: Recipe
    settings: Settings
    parent: Release | None = None  # that training begins from, once it is known

    @cached_property
    def family(self) -> Family:
        return family(self.recipe.family)

    @cached_property
    def protocol(self) -> Protocol:
        """How its figures are taken."""
        return self.family.protocol(self.recipe.columns)

    @cached_property
    def key(self) -> Key:
        return load_key(self.settings.key_file)

    @property
    def store(self) -> str:
        return self.settings.store_uri

    @property
    def holder(self) -> str:
        """Who trains: one run of a service at a time on a home, since it takes its lock."""
        return f"{socket.gethostname()}:{self.settings.home.absolute()}:{self.recipe.service}"

    @property
    def budget(self) -> Budget:
        """That of the recipe, or of what is left to learn after a predecessor."""
        budget = self.recipe.budget
        if self.parent is None:
            return budget
        return replace(budget, epochs=min(budget.epochs, self.recipe.start.epochs))

    @property
    def learning(self) -> tuple[code.Piece, ...]:
        """The code that makes a model of a spec, but for the spec's own."""
        kind = self.family
        return (
            kind.vocabulary, kind.examples, kind.cost, kind.collate, kind.loss, kind.weight,
            kind.outcomes, "ray_jobs.train",
        )  # fmt: skip

    def lineage(self, clean: CleanTable, splits: SplitTable) -> str:
        """Digest of resolved recipe, start, data, code and seed: equal means the same model."""
        recipe: dict[str, Any] = as_dict(self.recipe)
        # Where the data lay and what the gate asks leave the model as it is.
        aside = ("data", "encoding", "gate", "resources", "name", "max_bad_fraction", "start")
        for name in aside:
            recipe.pop(name)
        recipe["split"].pop("folds")
        facts: dict[str, Any] = {
            "recipe": recipe,
            "data": clean.digest,
            "splits": splits.content,
            "code": code.digest(type(self.recipe.spec), *self.learning),
        }
        if self.parent is not None:
            start = self.recipe.start
            facts["parent"] = [self.parent.digest, start.kept, self.budget.epochs]
        return manifest.digest(facts)[:32]
