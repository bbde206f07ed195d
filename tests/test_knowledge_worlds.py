"""What holds in any simulated world, however small or odd: its laws, its names, its files."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.errors import StoreError, UsageError
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import DAY_S, Truth, World


def replayed(truth: Truth, learner: str) -> list[float]:
    """The chance of each answer of a learner, by living through them in plain numbers."""
    world, number = truth.world, truth.learners.index(learner)
    gain: dict[int, float] = defaultdict(float)
    seen: dict[int, int] = {}
    told = []
    answers = truth.answers.filter(pl.col("learner") == learner)
    for name, time in answers.select("item", "time").iter_rows():
        item = truth.items.index(name)
        uses = np.flatnonzero(truth.item_skills[item]).tolist()
        for skill in uses:
            days = (time - seen.get(skill, time)) / DAY_S
            gain[skill] *= 0.5 ** (days / world.half_life_days)
            seen[skill] = time
        ability = sum(truth.ability[number, s] + gain[s] for s in uses) / len(uses)
        odds = truth.discrimination[item] * (ability - truth.difficulty[item])
        told.append(1 / (1 + math.exp(-odds)))
        for skill in uses:
            gain[skill] += truth.pace[number] * (1 - gain[skill] / world.limit)
    return told


def test_every_chance_follows_from_the_laws_answer_by_answer(tmp_path: Path) -> None:
    world = World(learners=25, items=20, skills=5, practice_noise=0.0, pace=0.5, dirt=0.0)
    truth = simulate(world, tmp_path)
    assert truth.answers.height > 500
    for learner in truth.learners:
        told = truth.answers.filter(pl.col("learner") == learner)["probability"]
        np.testing.assert_allclose(told, replayed(truth, learner), atol=1e-9)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    skills = draw(st.integers(1, 60))
    return World(
        seed=draw(st.integers(0, 99)),
        learners=draw(st.integers(1, 6)),
        skills=skills,
        items=draw(st.integers(skills, skills + 9)),
        days=draw(st.integers(1, 30)),
        answers=draw(st.floats(1.0, 30.0)),
        late_items=draw(st.floats(0.0, 1.0)),
        dirt=draw(st.floats(0.0, 0.49)),
    )


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_any_world_that_may_be_can_be_lived_in(world: World) -> None:
    with TemporaryDirectory() as folder:
        truth = simulate(world, Path(folder))
        lines = [p.read_text().count("\n") - 1 for p in Path(folder).iterdir()]
    assert len(set(truth.skills)) == world.skills
    assert len(set(truth.items)) == world.items
    open_at_once = truth.item_skills[truth.released == world.start]
    assert open_at_once.any(axis=0).all(), "each skill has an item from the first day on"
    assert set(truth.answers["learner"]) == set(truth.learners)
    released = dict(zip(truth.items, truth.released.tolist(), strict=True))
    asked = truth.answers.with_columns(pl.col("item").replace_strict(released).alias("released"))
    assert (asked["time"] >= asked["released"]).all()
    assert asked["time"].is_between(world.start, world.start + world.days * DAY_S).all()
    doubled = truth.planted["conflict"] // 2  # both rows of a conflict count, but one was added
    assert sum(lines) == truth.answers.height + sum(truth.planted.values()) - doubled


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learners": 0}, "learners, skills and days must be at least 1"),
        ({"skills": 0}, "learners, skills and days must be at least 1"),
        ({"days": 0}, "learners, skills and days must be at least 1"),
        ({"items": 11}, "11 items cannot cover 12 skills; give more"),
        ({"dirt": 0.5}, "dirt is 0.5; expected a share from 0 to below 0.5"),
        ({"dirt": -0.01}, "dirt is -0.01; expected a share from 0 to below 0.5"),
    ],
)
def test_a_world_that_cannot_be_is_refused_at_its_border(
    wrong: dict[str, float], message: str
) -> None:
    assert replace(World(), learners=1, items=12, days=1, dirt=0.0).skills == 12
    with pytest.raises(UsageError, match=message):
        replace(World(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"format": 2}, {"format": "1"}, {}])
def test_a_truth_of_another_format_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    simulate(World(learners=1), tmp_path / "logs").save(path)
    values = orjson.loads(path.read_bytes())
    del values["format"]
    path.write_bytes(orjson.dumps({**values, **change}))
    with pytest.raises(StoreError, match=r"truth\.json is not a truth of format 1; simulate again"):
        Truth.load(path)
