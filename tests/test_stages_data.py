"""From files to three tables: what the recipe asks of its data is what the stages do."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from ray_jobs.data.clean import CleanTable
from ray_jobs.data.history import named, reports
from ray_jobs.data.split import SplitTable
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import ContractError
from tasks.prepare import clean, ingest, split
from tests.stages_parts import planned, school, write_key


def prepared(folder: Path, **settings: str) -> tuple[CleanTable, SplitTable]:
    run = planned(folder, **settings)
    table, _ = clean.fn(run, ingest.fn(run)[0])
    return table, split.fn(run, table)[0]


def learners(splits: SplitTable, name: str) -> set[str]:
    return set(read_parquet(splits.table(name))["learner"])


def test_services_are_tested_on_learners_of_their_own(tmp_path: Path) -> None:
    school(tmp_path)
    table, one = prepared(tmp_path)
    _, other = prepared(tmp_path, service="geometry")
    assert learners(one, "test") != learners(other, "test")
    for splits in (one, other):
        groups = [learners(splits, name) for name in ("train", "validation", "test")]
        assert set.union(*groups) == set(read_parquet(table.table)["learner"])
        assert sum(map(len, groups)) == len(set.union(*groups))


def test_too_bad_a_log_is_refused_every_time_until_the_recipe_allows_it(tmp_path: Path) -> None:
    school(tmp_path, dirt=0.1)
    for _ in range(2):
        with pytest.raises(ContractError) as refused:
            prepared(tmp_path, max_bad_fraction="0.01")
    found = re.fullmatch(
        r"(\d+) of (\d+) rows are bad \(.*\d+ missing_item.*\), more than the recipe's 1%; they "
        r"lie in (.*)\. Mend the log, or these rows alone \(lyceum data replay (\w+)\), map its "
        r"columns with --set columns\.NAME=\.\.\., or allow more with --set max_bad_fraction=\.\.\."
        r"\. The report: (.*)",
        str(refused.value),
    )
    assert found
    assert len(read_parquet(found[3])) == int(found[1])
    page = Path(found[5]).read_text()
    assert f"{int(found[1]):,}" in page
    assert "missing_item" in page
    at = str(tmp_path / "home" / "store")
    assert reports(at, named(at, found[4]).snapshot) == [found[5]]
    table, _ = prepared(tmp_path, max_bad_fraction="0.2")
    assert (sum(table.quarantined.values()), table.read) == (int(found[1]), int(found[2]))


def test_a_log_without_times_keeps_the_order_of_its_rows(tmp_path: Path) -> None:
    write_key(tmp_path / "key", bytes(32))
    (tmp_path / "logs").mkdir()
    rows = [f"s{i % 30},item {(7 * i) % 11},add,{i % 3 % 2}" for i in range(600)]
    path = tmp_path / "logs" / "log.csv"
    path.write_text("\n".join(["learner,item,skills,correct", *rows, ""]))
    table, splits = prepared(tmp_path)
    assert (table.timed, table.kept, splits.cut) == (False, 600, None)
    kept = read_parquet(table.table)
    for answers in kept.partition_by("learner"):
        (first,) = {int(p) % 30 for p in answers["position"]}
        asked = [f"item {(7 * i) % 11}" for i in range(first, 600, 30)]
        assert answers["item"].to_list() == asked


def test_columns_by_other_names_are_read_as_the_recipe_maps_them(tmp_path: Path) -> None:
    truth = school(tmp_path, dirt=0.0)
    usual, _ = prepared(tmp_path)
    names = {"learner": "who", "item": "what", "skills": "about", "correct": "right", "time": "at"}
    files = sorted((tmp_path / "logs").iterdir())
    log = pl.concat(pl.read_csv(path, infer_schema=False) for path in files)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "logs").mkdir(parents=True)
    write_key(elsewhere / "key", bytes(32))
    log.rename(names).write_csv(elsewhere / "logs" / "log.csv")
    mapped, _ = prepared(elsewhere, **{f"columns.{ours}": name for ours, name in names.items()})
    assert mapped.kept == usual.kept == truth.answers.height
    assert (
        read_parquet(mapped.table)
        .drop("position")
        .equals(read_parquet(usual.table).drop("position"))
    )
