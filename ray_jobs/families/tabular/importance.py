"""How much a model leans on each feature: what its figures lose when that one is shuffled.

Permutation importance (Breiman 2001; Fisher, Rudin and Dominici 2019), on rows
that nobody trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ray_jobs.families.tabular.table import PREFIX
from ray_jobs.families.tabular.vocabulary import Vocabulary


def shuffled(table: pl.DataFrame, vocabulary: Vocabulary) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each feature, and the table in which its values have changed rows."""
    for column in vocabulary.columns:
        name = PREFIX + column.name
        yield column.name, table.with_columns(pl.col(name).shuffle(seed=0))
