"""Which items and skills the model knows: ids in order of first sight in the train split.

Id 0 is padding and id 1 is "unseen", so that every request can be answered.
Append-only: a retrained model keeps the ids of its predecessor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

PADDING = 0
UNSEEN = 1
MOST_SETS = 1 << 16  # of skills that are remembered


@dataclass(frozen=True)
class Vocabulary:
    """Items and skills of the train split; entry i has id i + 2."""

    items: tuple[str, ...]
    skills: tuple[str, ...]

    @classmethod
    def of(cls, train: Iterable[pl.DataFrame]) -> Vocabulary:
        """Read the vocabulary off the parts of the train split, and nothing else."""
        return cls((), ()).extended(train)

    def extended(self, train: Iterable[pl.DataFrame]) -> Vocabulary:
        """The same, and behind it what is new in the parts of another train split."""
        items, skills = dict.fromkeys(self.items), dict.fromkeys(self.skills)
        for table in train:
            items |= dict.fromkeys(table["item"].unique(maintain_order=True))
            some = table["skills"].explode().drop_nulls()
            skills |= dict.fromkeys(some.unique(maintain_order=True))
        return Vocabulary(tuple(items), tuple(skills))

    @cached_property
    def item_ids(self) -> dict[str, int]:
        return {name: i + 2 for i, name in enumerate(self.items)}

    @cached_property
    def skill_ids(self) -> dict[str, int]:
        return {name: i + 2 for i, name in enumerate(self.skills)}

    def item(self, name: str) -> int:
        return self.item_ids.get(name, UNSEEN)

    def skill_set(self, names: Iterable[str]) -> tuple[int, ...]:
        """Ids of a set of skills, ascending; unseen ones share one id."""
        asked = tuple(names)
        found = self._skill_sets.get(asked)
        if found is None:
            found = tuple(sorted({self.skill_ids.get(name, UNSEEN) for name in asked}))
            if len(self._skill_sets) < MOST_SETS:  # what clients make up must not fill memory
                self._skill_sets[asked] = found
        return found

    def skill_sets(self, sets: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        """Ids of several sets."""
        known = list(map(self._skill_sets.get, map(tuple, sets)))
        found = [ids for ids in known if ids is not None]
        return found if len(found) == len(sets) else [self.skill_set(names) for names in sets]

    @cached_property
    def _skill_sets(self) -> dict[tuple[str, ...], tuple[int, ...]]:
        """Sets met before: the same few come with every answer."""
        return {}

    def as_json(self) -> dict[str, Any]:
        return {"items": list(self.items), "skills": list(self.skills)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Vocabulary:
        return cls(tuple(values["items"]), tuple(values["skills"]))
