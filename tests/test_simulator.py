"""What the simulator promises: a log that obeys its laws, with exactly the dirt it admits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ray_jobs.data.clean import clean
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.sources import each_alone, find
from ray_jobs.errors import StoreError, UsageError
from ray_jobs.families.knowledge.formats import read
from ray_jobs.families.knowledge.rules import clean as rules
from ray_jobs.families.knowledge.simulator import HEADER, simulate
from ray_jobs.families.knowledge.table import CLEAN, Columns
from ray_jobs.families.knowledge.world import DAY_S, Truth, World, chance, faded, practised
from ray_jobs.privacy import Key

WORLD = World(learners=500, seed=5)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log")


@pytest.fixture(scope="module")
def truth(log: Path) -> Truth:
    return simulate(WORLD, log)


def lines(log: Path) -> list[str]:
    """All lines of the log but its headers."""
    files = [path.read_text().splitlines() for path in sorted(log.glob("*.csv"))]
    assert all(file[0] == HEADER for file in files)
    return [line for file in files for line in file[1:]]


def reason(fields: list[str]) -> str:
    """Why a row cannot be taken as it is; empty where it can."""
    if len(fields) != 5:
        return "malformed_line"
    for name, at in (("learner", 0), ("item", 1), ("correct", 3)):
        if not fields[at]:
            return f"missing_{name}"
    if fields[3] not in ("0", "1"):
        return "invalid_correct"
    return "" if fields[4].isdigit() else "invalid_time"


def test_outcomes_come_as_often_as_their_probabilities_say(truth: Truth) -> None:
    p, correct = truth.answers["probability"].to_numpy(), truth.answers["correct"].to_numpy()
    tenth = np.digitize(p, np.quantile(p, np.linspace(0.1, 0.9, 9)))
    for k in range(10):
        of = tenth == k
        error = np.sqrt((p[of] * (1 - p[of])).sum()) / of.sum()
        assert abs(correct[of].mean() - p[of].mean()) < 4 * error
    assert p.max() > 0.95
    assert p.min() < 0.05


def test_the_seed_decides_everything(truth: Truth, log: Path, tmp_path: Path) -> None:
    again = simulate(WORLD, tmp_path / "again")
    other = simulate(World(learners=500, seed=6), tmp_path / "other")
    assert lines(tmp_path / "again") == lines(log)
    assert again.answers.equals(truth.answers)
    assert lines(tmp_path / "other") != lines(log)
    assert not other.answers.equals(truth.answers)


def test_simulating_again_leaves_nothing_of_the_last_log(tmp_path: Path) -> None:
    (tmp_path / "of-a-school.csv").write_text("kept")
    simulate(World(learners=30), tmp_path)
    simulate(World(learners=1, answers=1.0, answers_spread=0.0), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["of-a-school.csv", "simulated-1.csv"]
    assert (tmp_path / "of-a-school.csv").read_text() == "kept"


def test_the_log_holds_exactly_the_dirt_that_was_planted(truth: Truth, log: Path) -> None:
    rows = [line.split(",") for line in lines(log)]
    found = Counter(filter(None, map(reason, rows)))
    good = Counter(tuple(row) for row in rows if not reason(row))
    found["repeat"] = sum(good.values()) - len(good)
    keys = Counter((learner, item, time) for learner, item, _, _, time in good)
    found["conflict"] = sum(count for count in keys.values() if count > 1)
    assert dict(found) == truth.planted
    assert min(truth.planted.values()) > 0
    assert sum(truth.planted.values()) / truth.answers.height == pytest.approx(0.03, abs=0.005)


def test_no_true_answer_is_lost_under_the_dirt(truth: Truth, log: Path) -> None:
    good = {tuple(row) for row in (line.split(",") for line in lines(log)) if not reason(row)}
    true = {
        (learner, item, ";".join(skills), str(int(correct)), str(int(time)))
        for learner, item, skills, correct, time in truth.table().select(list(CLEAN)[:5]).rows()
    }
    assert true <= good
    assert len(good - true) == truth.planted["conflict"] // 2


def test_a_dirty_row_borrows_no_moment_of_a_true_answer(truth: Truth, log: Path) -> None:
    """So a cleaner may look for repeats and conflicts before or after it looks for the rest."""
    moments = set(truth.answers.select("learner", "time").rows())
    dirty = [row for row in (line.split(",") for line in lines(log)) if reason(row)]
    whole = [row for row in dirty if len(row) == 5 and row[4].isdigit()]
    assert len(whole) > 300
    assert not [row for row in whole if (row[0], int(row[4])) in moments]


def test_cleaning_finds_what_was_planted_and_gives_the_rest_back(
    truth: Truth, log: Path, tmp_path: Path
) -> None:
    key, columns = Key(bytes(32)), Columns()
    snapshot, _ = ingest(
        each_alone(find(str(log))),
        lambda unit: read(unit, columns),
        group="learner",
        key=key,
        store_uri=str(tmp_path),
    )
    cleaned = clean(
        snapshot,
        lambda rows, timed: rules(rows, timed, columns),
        uri=str(tmp_path / "clean"),
        key=key,
        max_bad_fraction=0.1,
    )
    planted = dict(truth.planted)
    assert cleaned.repeats == planted.pop("repeat")
    assert cleaned.quarantined == planted
    assert cleaned.merged == 0
    assert cleaned.kept == truth.answers.height - planted["conflict"] // 2
    pseudonyms = {name: key.pseudonym(name) for name in truth.learners}
    fields = ["learner", "item", "skills", "correct", "time"]
    true = truth.table().with_columns(pl.col("learner").replace_strict(pseudonyms))
    kept = pl.read_parquet(cleaned.table).select(fields)
    assert kept.join(true, on=fields, how="anti").is_empty()


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_dirt_may_be_none_or_plenty(tmp_path: Path, share: float) -> None:
    truth = simulate(World(learners=40, dirt=share), tmp_path)
    extra = sum(truth.planted.values()) - truth.planted["conflict"] // 2
    assert len(lines(tmp_path)) == truth.answers.height + extra
    assert (extra > 0) == (share > 0)


def test_rows_arrive_out_of_order(truth: Truth, log: Path) -> None:
    rows = [line.split(",") for line in lines(log)]
    times = np.array([int(row[4]) for row in rows if not reason(row)])
    assert 0.3 < (np.diff(times) < 0).mean() < 0.7
    assert np.corrcoef(times, np.arange(len(times)))[0, 1] > 0.95


def test_two_answers_of_a_learner_never_look_like_one(truth: Truth) -> None:
    gaps = truth.answers.select(pl.col("time").diff().over("learner")).drop_nulls()
    assert gaps.to_series().min() == 5


def test_learners_drop_out_early_and_late(truth: Truth) -> None:
    lengths = truth.answers.group_by("learner").len()["len"].to_numpy()
    assert len(lengths) == WORLD.learners
    assert 35 < np.median(lengths) < 55
    assert lengths.min() < 10
    assert lengths.max() > 250


def test_late_items_are_new_to_a_test_on_the_future(truth: Truth) -> None:
    released = dict(zip(truth.items, truth.released.tolist(), strict=True))
    seen = truth.answers.with_columns(pl.col("item").replace_strict(released).alias("released"))
    assert seen.filter(pl.col("time") < pl.col("released")).is_empty()
    late = truth.released > WORLD.start
    assert late.sum() == 20
    assert truth.released[late].min() >= WORLD.start + 0.8 * WORLD.days * DAY_S
    answered = seen.filter(pl.col("released") > WORLD.start)
    assert answered["item"].n_unique() > 15
    assert answered["time"].to_numpy().max() < WORLD.start + WORLD.days * DAY_S


def test_items_are_chosen_for_the_topic_at_hand(truth: Truth) -> None:
    """Within a sitting the next item shares a skill far more often than any two items do."""
    table = truth.table()
    other = pl.col("skills").shift().over("learner")
    shares = pl.col("skills").list.set_intersection(other).list.len() > 0
    near = pl.col("time").diff().over("learner") < 600
    together = table.filter(near).height
    sharing = table.with_columns(shares.alias("shares")).filter(near)["shares"].sum()
    at_random = (truth.item_skills.astype(int) @ truth.item_skills.T > 0).mean()
    assert sharing / together > 2 * at_random


def practices(truth: Truth) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Of answers on one skill: surplus over the unpractised learner, times practised, days ago."""
    rows = truth.answers.join(
        pl.DataFrame({"item": truth.items, "number": range(len(truth.items))}), on="item"
    ).sort("learner", "time")
    learners = {name: i for i, name in enumerate(truth.learners)}
    seen: dict[tuple[int, int], tuple[int, int]] = {}
    found = []
    for name, time, correct, i in rows.select("learner", "time", "correct", "number").iter_rows():
        learner, skills = learners[name], np.flatnonzero(truth.item_skills[i]).tolist()
        if len(skills) == 1:
            count, last = seen.get((learner, skills[0]), (0, time))
            static = chance(
                truth.ability[learner, skills], truth.difficulty[[i]], truth.discrimination[[i]]
            )
            found.append((correct - static[0], count, (time - last) / DAY_S))
        for skill in skills:
            seen[learner, skill] = (seen.get((learner, skill), (0, time))[0] + 1, time)
    surplus, count, days = (np.array(column) for column in zip(*found, strict=True))
    return surplus, count, days


def test_practice_shows_in_the_outcomes_and_so_does_forgetting(truth: Truth) -> None:
    surplus, count, days = practices(truth)
    first = surplus[count == 0]
    fresh = surplus[(count >= 8) & (days < 0.1)]
    stale = surplus[(count >= 8) & (days > 12)]
    assert abs(first.mean()) < 4 * first.std() / np.sqrt(len(first))
    assert fresh.mean() > 0.12
    assert stale.mean() < fresh.mean() - 3 * stale.std() / np.sqrt(len(stale))


def test_half_of_a_gain_is_left_after_the_half_life() -> None:
    world, gain = World(), np.array([1.0])
    half_life = np.array([world.half_life_days * DAY_S])
    assert faded(gain, half_life, world) == pytest.approx(0.5)
    assert faded(gain, np.zeros(1), world) == gain


@given(st.floats(0.01, 0.9), st.floats(-1.0, 2.4))
def test_each_practice_brings_less_than_the_one_before(pace: float, gain: float) -> None:
    world = World()
    start: NDArray[np.float64] = np.array([gain])
    still, paces = np.zeros_like(start), np.full_like(start, pace)
    once = practised(start, paces, still, world)
    twice = practised(once, paces, still, world)
    assert start < once < twice < world.limit + 1e-9
    assert twice - once < once - start


def test_a_truth_survives_being_saved(truth: Truth, tmp_path: Path) -> None:
    truth.save(tmp_path / "truth.json")
    back = Truth.load(tmp_path / "truth.json")
    assert back.world == truth.world
    assert back.answers.equals(truth.answers)
    assert (back.skills, back.items, back.learners) == (truth.skills, truth.items, truth.learners)
    assert back.planted == truth.planted
    for name in ("item_skills", "difficulty", "discrimination", "released", "ability", "pace"):
        assert np.array_equal(getattr(back, name), getattr(truth, name))
        assert getattr(back, name).dtype == getattr(truth, name).dtype


def test_a_file_that_is_no_truth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text("[1]")
    with pytest.raises(StoreError, match="simulate again"):
        Truth.load(tmp_path / "truth.json")


@pytest.mark.parametrize("wrong", [{"learners": 0}, {"items": 3}, {"dirt": 0.7}])
def test_a_world_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        World(**wrong)


def test_the_table_of_the_truth_is_a_clean_table(truth: Truth) -> None:
    table = truth.table()
    assert table.schema == CLEAN
    assert table.select("learner", "time").equals(table.sort("learner", "time")["learner", "time"])
    assert table["skills"].list.len().is_between(1, 3).all()
