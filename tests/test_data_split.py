"""What splitting promises: no learner and no future leaks into what a model is trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import store
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import NAMES, SplitTable, split
from ray_jobs.data.tables import write_part
from ray_jobs.errors import ContractError, UsageError
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.privacy import Key, buckets
from ray_jobs.recipe import Split

KEY = Key(bytes(32))
SOME = settings(max_examples=30, deadline=None)  # each writes files
HALVES = Split(test=0.3, validation=0.3)


def table(
    learners: Sequence[str],
    times: Sequence[float | None] | None = None,
    delivered: Sequence[str | None] | None = None,
    key: Key = KEY,
) -> pl.DataFrame:
    """A clean table with one answer a row, by these learners at these times."""
    names = pl.Series("learner", learners, pl.String)
    rows = {
        "learner": key.pseudonyms(names),
        "item": [f"i{n}" for n in range(len(learners))],
        "skills": [["s"]] * len(learners),
        "correct": [1.0] * len(learners),
        "time": list(times) if times else [None] * len(learners),
        "position": range(len(learners)),
        "bucket": buckets(names),
        "split": list(delivered) if delivered else [None] * len(learners),
        "scored": [True] * len(learners),
        "response_s": [None] * len(learners),
        "about": [None] * len(learners),
    }
    return pl.DataFrame(rows, schema=CLEAN)


def divided(
    folder: Path, frame: pl.DataFrame, how: Split = HALVES, salt: str = "school", shares: int = 3
) -> SplitTable:
    """Divide a clean table that lies in some shares of all learners."""
    clean = CleanTable(
        uri=str(folder / "clean"),
        digest="d",
        read=len(frame),
        kept=len(frame),
        quarantined={},
        merged=0,
        repeats=0,
        timed=frame["time"].is_not_null().all(),
    )
    for share in range(shares):
        mine = frame.filter(pl.col("bucket") % shares == share)
        write_part(clean.table, share, mine)
    return split(clean, how, group="learner", salt=salt, uri=str(folder / "split"))


def parts(of: SplitTable) -> dict[str, pl.DataFrame]:
    return {name: pl.read_parquet(of.table(name)) for name in NAMES}


def who(of: SplitTable) -> dict[str, set[str]]:
    return {name: set(part["learner"]) for name, part in parts(of).items()}


MANY = [f"learner {n}" for n in range(60) for _ in range(1 + n % 4)]
LOGS = st.lists(st.tuples(st.integers(0, 59), st.integers(1, 999)), max_size=40)


@SOME
@given(LOGS, st.sampled_from([0.1, 0.45, 1.0]))
def test_no_learner_lies_in_two_splits_and_no_future_is_trained_on(
    log: list[tuple[int, int]], until: float
) -> None:
    everyone = [*((n, t) for n in range(60) for t in (0, 1000)), *log]
    frame = table([f"learner {n}" for n, _ in everyone], [float(t) for _, t in everyone])
    with TemporaryDirectory() as folder:
        result = divided(Path(folder), frame, Split(0.3, 0.3, until))
        of = parts(result)
    learners = [set(part["learner"]) for part in of.values()]
    assert sum(len(some) for some in learners) == len(set().union(*learners))
    for name in ("train", "validation"):
        assert of[name]["scored"].all()
        assert result.cut is None or (of[name]["time"] <= result.cut).all()
    test = of["test"]
    assert test["scored"].to_list() == [result.cut is None or t > result.cut for t in test["time"]]
    assert (result.cut is None) == (until == 1)
    assert len(frame) == sum(len(part) for part in of.values()) + result.held_back


def test_what_is_said_of_a_split_is_true_of_its_tables(tmp_path: Path) -> None:
    times = [float(n % 50) for n in range(len(MANY))]
    result = divided(tmp_path, table(MANY, times), Split(0.3, 0.3, 0.8))
    assert store.read_json(f"{result.uri}/split.json") == result.as_dict()
    for name, part in parts(result).items():
        assert result.rows[name] == len(part)
        assert result.scored[name] == part["scored"].sum() > 0
        assert result.groups[name] == part["learner"].n_unique()
        assert part.schema == CLEAN
        assert part["split"].unique().to_list() == [name]


def test_the_same_salt_divides_the_same_and_another_otherwise(tmp_path: Path) -> None:
    frame = table(MANY)
    first = who(divided(tmp_path / "1", frame))
    assert who(divided(tmp_path / "2", frame.reverse())) == first
    assert who(divided(tmp_path / "3", frame, salt="other school"))["test"] != first["test"]


@pytest.mark.parametrize("until", [1.0, 0.6])
def test_in_how_many_parts_a_table_lies_is_nothing_to_its_split(
    until: float, tmp_path: Path
) -> None:
    frame = table(MANY, [float(n * 7 % 50) for n in range(len(MANY))])
    one, many = (
        divided(tmp_path / str(n), frame, replace(HALVES, until=until), shares=n) for n in (1, 4)
    )
    for name, part in parts(one).items():
        assert sorted(part["item"]) == sorted(parts(many)[name]["item"])
    assert replace(one, uri="", content="") == replace(many, uri="", content="")


def test_a_learner_keeps_the_split_when_others_come_and_go(tmp_path: Path) -> None:
    before = who(divided(tmp_path / "1", table(MANY)))
    after = who(divided(tmp_path / "2", table([*MANY[30:], *(f"new {n}" for n in range(40))])))
    for name in NAMES:
        known = after[name] & set().union(*before.values())
        assert known
        assert known <= before[name]


def test_two_installations_with_two_keys_test_on_the_same_people(tmp_path: Path) -> None:
    """The buckets come from the original ids, in public, so that figures can be compared."""
    chosen = []
    for number, key in enumerate((KEY, Key(b"k" * 32))):
        names = {key.pseudonym(name): name for name in MANY}
        of = who(divided(tmp_path / str(number), table(MANY, key=key)))
        chosen.append({name: {names[p] for p in some} for name, some in of.items()})
    assert chosen[0] == chosen[1]


def test_splits_are_as_large_as_asked(tmp_path: Path) -> None:
    groups = divided(tmp_path, table([f"l{n}" for n in range(4000)]), Split(0.2, 0.1)).groups
    assert groups["test"] == pytest.approx(800, abs=80)
    assert groups["validation"] == pytest.approx(400, abs=60)


def test_a_delivered_split_is_honoured_to_the_row(tmp_path: Path) -> None:
    delivered = [NAMES[int(name.split()[1]) % 3] for name in MANY]
    result = divided(tmp_path, table(MANY, delivered=delivered))
    assert result.delivered
    found = {item: name for name, part in parts(result).items() for item in part["item"]}
    assert found == {f"i{n}": name for n, name in enumerate(delivered)}


def test_where_only_train_and_test_came_validation_is_carved_from_train(tmp_path: Path) -> None:
    delivered = ["test" if int(name.split()[1]) % 3 else "train" for name in MANY]
    frame = table(MANY, delivered=delivered)
    of = who(divided(tmp_path, frame))
    test = set(frame.filter(pl.col("split") == "test")["learner"])
    assert of["test"] == test
    assert of["validation"]
    assert not of["validation"] & (test | of["train"])


def test_a_learner_delivered_in_two_splits_is_refused(tmp_path: Path) -> None:
    delivered: list[str | None] = ["train", "test", "validation"] * 20
    frame = table(["ann", *(f"l{n}" for n in range(58)), "ann"], delivered=delivered)
    with pytest.raises(ContractError, match=r"1 groups \(learner\) stand in more than one"):
        divided(tmp_path, frame)


@pytest.mark.parametrize("learners", [["one"] * 50, ["one"] * 9 + ["two"]])
def test_too_few_learners_for_three_splits_are_refused(learners: list[str], tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"split is empty: \d groups.*--set split\.test"):
        divided(tmp_path, table(learners))


def test_a_test_split_without_a_future_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="the test split is empty"):
        divided(tmp_path, table(MANY, [7.0] * len(MANY)), Split(0.3, 0.3, 0.5))


def test_a_cut_that_a_log_without_times_cannot_have_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ray_jobs"):
        result = divided(tmp_path, table(MANY), Split(0.3, 0.3, 0.8))
    assert (result.cut, result.held_back) == (None, 0)
    assert "no times" in caplog.text


@pytest.mark.parametrize(
    "shares", [(0.0, 0.1, 1.0), (0.1, 0.0, 1.0), (0.5, 0.5, 1.0), (0.2, 0.1, 0.0), (0.2, 0.1, 1.1)]
)
def test_shares_that_leave_nobody_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match=r"--set split\.test"):
        Split(*shares)
