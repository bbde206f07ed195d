"""Learners who were erased: known by keyed hashes alone, and left out of whatever is read.

A tombstone names nobody: it holds a hash of a pseudonym, and of the words of an
id, so that lines which could not be read can be asked whether they name them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import polars as pl

from ray_jobs import store
from ray_jobs.privacy import Key

FOLDER = "erasures"  # of the store
WORDS = re.compile(r"[^\s,;|\"'{}\[\]()<>:=]+")


@dataclass(frozen=True)
class Tombstone:
    """One who was erased, as far as we may know them."""

    learner: str  # hash of a pseudonym
    words: frozenset[str]  # hashes of the words of an id

    @classmethod
    def of(cls, learner: str, key: Key) -> Tombstone:
        """Of a learner by the id that the logs have."""
        hashed = key.hasher("tombstone")
        return cls(hashed(key.pseudonym(learner)), frozenset(map(hashed, WORDS.findall(learner))))


@dataclass(frozen=True)
class Forgotten:
    """All who were erased under a key."""

    tombstones: tuple[Tombstone, ...]
    key: Key = field(repr=False)

    def others(self, rows: pl.DataFrame, group: str) -> pl.DataFrame:
        """Rows with pseudonyms, but for those of the erased."""
        if not self.tombstones:
            return rows
        hashed, gone = self.key.hasher("tombstone"), {t.learner for t in self.tombstones}
        names = [name for name in rows[group].unique().drop_nulls() if hashed(name) in gone]
        return rows.filter(~pl.col(group).is_in(names).fill_null(False)) if names else rows

    def unnamed(self, lines: pl.DataFrame) -> pl.DataFrame:
        """Malformed lines (`raw`), but for those that hold every word of an erased one's id."""
        if not self.tombstones or lines.is_empty():
            return lines
        hashed = self.key.hasher("tombstone")
        said = [{hashed(word) for word in WORDS.findall(text or "")} for text in lines["raw"]]
        named = [any(stone.words <= words for stone in self.tombstones) for words in said]
        return lines.filter(~pl.Series(named, dtype=pl.Boolean))


def forgotten(store_uri: str, key: Key) -> Forgotten:
    """Those whom a store must not hold."""
    folder = store.join(store_uri, FOLDER)
    kept = [store.read_json(store.join(folder, name)) for name in sorted(store.sizes(folder))]
    stones = [
        Tombstone(one["learner"], frozenset(one["words"]))
        for one in kept
        if one["key"] == key.fingerprint
    ]
    return Forgotten(tuple(stones), key)
