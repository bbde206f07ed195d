"""The proof of no leakage counts what is there: whatever the division said."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_jobs.data import proof
from ray_jobs.data.proof import Proof, prove
from ray_jobs.data.split import NAMES
from ray_jobs.data.tables import write_part

ROWS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(NAMES), st.integers(0, 3)), max_size=40
)


def written(folder: Path, rows: list[tuple[int, str, int]], parts: int = 3) -> dict[str, str]:
    """Tables of three splits, each row in one of some parts, at its group's number as time."""
    tables = {name: str(folder / name) for name in NAMES}
    for name, uri in tables.items():
        for part in range(parts):
            of = [f"g{g}" for g, split, place in rows if (split, place % parts) == (name, part)]
            times = [float(g[1:]) for g in of]
            frame = {"learner": of, "time": times, "scored": [True] * len(of)}
            schema = {"learner": pl.String, "time": pl.Float64, "scored": pl.Boolean}
            write_part(uri, part, pl.DataFrame(frame, schema))
    return tables


def proved(tables: dict[str, str], cut: float | None = None, groups: int = 10) -> Proof:
    return prove(tables, group="learner", cut=cut, groups=groups)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ROWS, st.integers(1, 4))
def test_groups_are_counted_as_sets_count_them(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str, int]],
    at_once: int,
) -> None:
    """However few groups fit in memory, and wherever the rows of one lie."""
    tables = written(tmp_path_factory.mktemp("splits"), rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "AT_ONCE", at_once)
        found = proved(tables)
    of = {name: {g for g, split, _ in rows if split == name} for name in NAMES}
    assert found.groups == {name: len(groups) for name, groups in of.items()}
    everyone = set.union(*of.values())
    assert found.shared == sum(sum(g in groups for groups in of.values()) > 1 for g in everyone)
    assert bool(found.fault) == bool(found.shared)


def test_training_that_reaches_beyond_the_cut_is_a_leak(tmp_path: Path) -> None:
    tables = written(tmp_path, [(1, "train", 0), (3, "validation", 0), (5, "test", 1)])
    apart = proved(tables, cut=4.0)
    assert (apart.latest, apart.earliest, apart.fault) == (3.0, 5.0, "")
    assert proved(tables, cut=3.0).fault == "", "a row at the cut is past"
    for cut in (2.0, 5.0):
        assert "training ends at 3.0, testing begins at 5.0" in proved(tables, cut=cut).fault
    assert proved(tables).latest is None


def test_a_test_row_that_is_only_context_may_lie_before_the_cut(tmp_path: Path) -> None:
    tables = written(tmp_path, [(1, "train", 0), (2, "validation", 0), (5, "test", 0)])
    context = {"learner": ["g5"], "time": [0.5], "scored": [False]}
    write_part(tables["test"], 7, pl.DataFrame(context))
    assert proved(tables, cut=4.0).fault == ""
    write_part(tables["test"], 7, pl.DataFrame({**context, "scored": [True]}))
    assert "testing begins at 0.5" in proved(tables, cut=4.0).fault


def test_a_cut_without_times_proves_nothing(tmp_path: Path) -> None:
    tables = written(tmp_path, [(1, "train", 0), (2, "validation", 0)])
    assert proved(tables, cut=4.0).fault == "rows lack the times that they are divided by"
