"""Public logs read to the row: what their description counts is what ingest and clean count.

The sets lie beside the checkout, below ../shared/data, and are no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ray_jobs.data.clean import CleanTable, clean
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.sources import find
from ray_jobs.data.split import split
from ray_jobs.errors import ContractError
from ray_jobs.families import family
from ray_jobs.families.knowledge.table import Columns
from ray_jobs.families.tabular import table as tabular
from ray_jobs.privacy import Key
from ray_jobs.recipe import Split

DATA = Path(__file__).parents[1].parent / "shared" / "data"
KEY = Key(bytes(32))

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the public data sets are not beside this checkout (../shared/data)"
)


@dataclass(frozen=True)
class Known:
    """What the description of a set says of it."""

    data: str
    rows: int
    test_rows: int
    learners: int
    test_learners: int
    items: int | None = None
    skills: int | None = None
    merged: int = 0


FORMS = [
    Known("assist2009/events", 278_336, 58_266, 3_114, 623, items=17_708, skills=149),
    Known(
        "assist2009/akt_pid/*1.csv.gz", 325_637, 0, 4_151, 830, items=16_891, skills=110,
        merged=51_052,
    ),
    Known("assist2009/edm2016_dedup/0910_a_*", 401_272, 71_843, 4_216, 844),
    Known("assist2009/edm2016_dedup/0910_b_*", 327_987, 65_691, 4_216, 844),
    Known("assist2009/edm2016_dedup/0910_c_*", 275_176, 52_423, 4_216, 844, skills=145),
    # 123 skills in its train file, and one more in the other
    Known("assist2009/dkt_2015", 525_534, 117_567, 4_217, 856, skills=124),
    Known("assist2009/dkvmn_updated/*.csv.gz", 325_637, 101_419, 4_151, 1_230, skills=110),
    Known("assist2015/akt/*1.csv.gz", 683_801, 0, 19_840, 3_968, skills=100),
    Known("assist2015/edm2016", 822_938, 157_643, 20_195, 4_039),
]  # fmt: skip


def prepared(kind: str, data: str, columns: Any, folder: Path) -> CleanTable:
    """The clean table of a public set, in which no row may be bad."""
    of = family(kind)
    snapshot, _ = ingest(
        of.units(find(str(DATA / data))),
        lambda unit: of.read(unit, columns),
        group=of.group,
        ordered=of.ordered,
        key=KEY,
        store_uri=str(folder),
    )
    return clean(
        snapshot,
        lambda rows, timed: of.clean(rows, timed, columns),
        uri=str(folder / "clean"),
        key=KEY,
        max_bad_fraction=0.0,
        whole=of.whole,
    )


@pytest.mark.parametrize("known", FORMS, ids=lambda known: known.data)
def test_a_public_log_is_read_to_the_row(known: Known, tmp_path: Path) -> None:
    table = prepared("knowledge", known.data, Columns(), tmp_path)
    splits = split(table, Split(), group="learner", salt="s", uri=str(tmp_path / "split"))
    assert table.read == known.rows
    assert (table.quarantined, table.repeats, table.merged) == ({}, 0, known.merged)
    assert table.kept == known.rows - known.merged
    assert not table.timed
    assert splits.delivered
    assert sum(splits.groups.values()) == known.learners
    assert splits.groups["test"] == known.test_learners
    assert known.test_rows in {0, splits.rows["test"]}  # 0: the rows of one fold are not told
    frame = pl.read_parquet(table.table)
    assert known.items in {None, frame["item"].n_unique()}
    assert known.skills in {None, frame["skills"].explode().n_unique()}
    assert set(frame["correct"].unique()) == {0.0, 1.0}


@pytest.mark.parametrize("folder", ["assist2009/akt_pid", "assist2015/akt"])
def test_a_folder_of_five_folds_is_refused_with_the_one_to_name(folder: str) -> None:
    with pytest.raises(ContractError, match=r"folds 1, 2, 3, 4, 5.*/\*1\.csv\.gz'"):
        find(str(DATA / folder))


@pytest.mark.parametrize("folder", ["assist2009/dkvmn_updated", "assist2009/edm2016_dedup"])
def test_a_folder_of_more_than_one_log_is_refused(folder: str) -> None:
    with pytest.raises(ContractError, match="with a glob"):
        find(str(DATA / folder))


@pytest.mark.parametrize(
    ("data", "columns", "rows"),
    [
        ("uci_student/student-mat.csv", {"label": "G3"}, 395),
        ("uci_student/student-por.csv", {"label": "G3"}, 649),  # `;`, and grades in quotes
        ("uci_student", {"label": "G3"}, 395 + 649),  # both dialects at once
        ("uci_occupancy/datatraining.txt.gz", {"label": "Occupancy"}, 8_143),  # a nameless column
        ("uci_occupancy", {"label": "Occupancy"}, 8_143 + 2_665 + 9_752),
        ("oulad", {"label": "passed", "day": 60}, None),
    ],
)
def test_a_public_table_is_read_to_the_row(
    data: str, columns: dict[str, Any], rows: int | None, tmp_path: Path
) -> None:
    table = prepared("tabular", data, tabular.Columns(**columns), tmp_path)
    assert rows in {None, table.read}
    assert table.read > 0
    assert (table.kept, table.quarantined) == (table.read, {})
    assert not any(
        name in {"0", "_", ""} for name in tabular.features(pl.read_parquet(table.table))
    )
