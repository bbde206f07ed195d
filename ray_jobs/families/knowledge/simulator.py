"""A simulator of learners: the log of a school whose truth is known.

Learners start at different times, sit in sessions on one topic, learn by
practice, forget without it and drop out. Everything follows from the seed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from ray_jobs import store
from ray_jobs.families.knowledge.dirt import soiled
from ray_jobs.families.knowledge.world import (
    ANSWERS,
    DAY_S,
    Truth,
    World,
    chance,
    faded,
    practised,
)

logger = logging.getLogger(__name__)

HEADER = "learner,item,skills,correct,time"
NAMES = (
    *("counting", "addition", "subtraction", "multiplication", "division", "fractions"),
    *("decimals", "percentages", "ratios", "powers", "expressions", "equations"),
    *("inequalities", "functions", "graphs", "angles", "triangles", "areas"),
    *("volumes", "symmetry", "units", "averages", "charts", "probability"),
)
MAX_ANSWERS = 400  # of one learner
EXPORTS = 4  # files of the log


def simulate(world: World, folder: Path) -> Truth:
    """Write a world's log, dirt and all, as CSV files; returns the truth behind it.

    Only the files of an earlier simulation are replaced. Save the truth
    elsewhere: what lies in the folder will be ingested.
    """
    rng = np.random.default_rng(world.seed)
    truth = _lived(world, rng)
    lines, planted = soiled(_rows(truth), world.dirt, rng)
    for old in folder.glob("simulated-*.csv"):
        old.unlink()
    size = -(-len(lines) // EXPORTS)
    for number, first in enumerate(range(0, len(lines), size), start=1):
        text = "\n".join([HEADER, *lines[first : first + size], ""])
        store.write_bytes(str(folder / f"simulated-{number}.csv"), text.encode())
    answers = truth.answers.height
    logger.info(
        "simulated %d answers of %d learners and %d dirty rows",
        *(answers, world.learners, len(lines) - answers),
    )
    return replace(truth, planted=planted)


@dataclass(frozen=True)
class _Plan:
    """When L learners answer, and on which topic, T steps at most."""

    times: NDArray[np.int64]  # (L, T) unix seconds, strictly increasing
    topics: NDArray[np.int64]  # (L, T) number of a skill
    lengths: NDArray[np.int64]  # (L,) answers given before dropping out, at least 1


def _lived(world: World, rng: Generator) -> Truth:
    item_skills = _item_skills(world, rng)
    skills = tuple(_skill_name(s) for s in range(world.skills))
    general = rng.normal(world.general_mean, world.general_sd, (world.learners, 1))
    truth = Truth(
        world=world,
        skills=skills,
        items=tuple(
            f"{skills[i % world.skills]}-{i // world.skills + 1:03}" for i in range(world.items)
        ),
        item_skills=item_skills,
        difficulty=rng.normal(0.0, world.difficulty_sd, world.items),
        discrimination=world.discrimination
        * np.exp(rng.normal(0.0, world.discrimination_sd, world.items)),
        released=_releases(world, rng),
        learners=tuple(f"s-{i:06}" for i in range(1, world.learners + 1)),
        ability=general + rng.normal(0.0, world.skill_sd, (world.learners, world.skills)),
        pace=world.pace * np.exp(rng.normal(0.0, world.pace_sd, world.learners)),
        answers=pl.DataFrame(schema=ANSWERS),
        planted={},
    )
    answers = _answers(truth, _plan(world, rng), rng)
    return replace(truth, answers=answers)


def _skill_name(number: int) -> str:
    again, which = divmod(number, len(NAMES))
    return NAMES[which] + (f"-{again + 1}" if again else "")


def _item_skills(world: World, rng: Generator) -> NDArray[np.bool_]:
    """One to three skills per item: a main one and, at times, those next in the curriculum."""
    main = np.arange(world.items) % world.skills
    extra = rng.choice(3, world.items, p=[0.55, 0.32, 0.13])
    matrix = np.zeros((world.items, world.skills), bool)
    for step in range(3):
        rows = np.flatnonzero(extra >= step)
        matrix[rows, (main[rows] + step) % world.skills] = True
    return matrix


def _releases(world: World, rng: Generator) -> NDArray[np.int64]:
    released = np.full(world.items, world.start)
    # The first item of each skill is there from the start, so that none is ever empty.
    candidates = np.arange(world.skills, world.items)
    count = min(round(world.late_items * world.items), len(candidates))
    late = rng.choice(candidates, count, replace=False)
    # Half of the time left remains to answer even the last of them.
    when = rng.uniform(world.late_from, (1.0 + world.late_from) / 2, count)
    released[late] += (when * world.days * DAY_S).astype(np.int64)
    return released


def _plan(world: World, rng: Generator) -> _Plan:
    wanted = np.exp(rng.normal(np.log(world.answers), world.answers_spread, world.learners))
    lengths = np.clip(wanted.round(), 1, MAX_ANSWERS).astype(np.int64)
    shape = (world.learners, int(lengths.max()))
    sits_down = rng.random(shape) < 1.0 / world.session
    seconds = np.clip(np.exp(rng.normal(np.log(40.0), 0.6, shape)), 5, 600)
    days = np.clip(np.exp(rng.normal(np.log(2.0), 1.0, shape)), 0.3, 45)
    gaps = np.where(sits_down, days * DAY_S, seconds).astype(np.int64)
    gaps[:, 0] = rng.uniform(0, 0.75 * world.days * DAY_S, world.learners).astype(np.int64)
    times = world.start + gaps.cumsum(axis=1)
    moves = np.where(sits_down, rng.choice([0, 1, -2], shape, p=[0.4, 0.45, 0.15]), 0)
    first = rng.integers(world.skills, size=(world.learners, 1))
    closed = (times < world.start + world.days * DAY_S).sum(axis=1)
    return _Plan(
        times=times,
        topics=(first + moves.cumsum(axis=1)) % world.skills,
        lengths=np.minimum(lengths, closed),
    )


def _answers(truth: Truth, plan: _Plan, rng: Generator) -> pl.DataFrame:
    """Let every learner live through the plan, one answer of each at a time."""
    gain = np.zeros_like(truth.ability)  # (L, S) logits by practice, as of `seen`
    seen = np.zeros(truth.ability.shape, np.int64)  # (L, S) unix seconds of the last practice
    learners, names = np.array(truth.learners), np.array(truth.items)
    frames = []
    for step in range(int(plan.lengths.max())):
        who = np.flatnonzero(plan.lengths > step)  # (n,)
        now = plan.times[who, step]
        items = _chosen(truth, plan.topics[who, step], now, rng)
        uses = truth.item_skills[items]  # (n, S)
        held = faded(gain[who], now[:, None] - seen[who], truth.world)
        ability = np.mean(truth.ability[who] + held, axis=1, where=uses)
        odds = chance(ability, truth.difficulty[items], truth.discrimination[items])
        noise = rng.standard_normal(uses.shape)
        gain[who] = np.where(
            uses, practised(held, truth.pace[who, None], noise, truth.world), gain[who]
        )
        seen[who] = np.where(uses, now[:, None], seen[who])
        correct = rng.random(len(who)) < odds
        columns = [learners[who], names[items], now, correct, odds]
        frames.append(pl.DataFrame(columns, schema=ANSWERS.names()).cast(ANSWERS))
    return pl.concat(frames).sort("learner", "time")


def _chosen(
    truth: Truth, topics: NDArray[np.int64], now: NDArray[np.int64], rng: Generator
) -> NDArray[np.int64]:
    """An item for each learner: mostly of the topic, never before its release, new ones first."""
    weights = np.where(truth.item_skills.T[topics], 1.0, 0.03)  # (n, I)
    new = truth.released > truth.world.start
    weights = weights * np.where(new, 4.0, 1.0) * (truth.released <= now[:, None])
    reached = weights.cumsum(axis=1)
    aim = rng.random((len(topics), 1)) * reached[:, -1:]
    chosen: NDArray[np.int64] = (reached > aim).argmax(axis=1)
    return chosen


def _rows(truth: Truth) -> pl.DataFrame:
    """The answers as the fields of a CSV, in the order in which they were given."""
    skills = {item: ";".join(truth.skills_of(i)) for i, item in enumerate(truth.items)}
    return truth.answers.sort("time", maintain_order=True).select(
        "learner",
        "item",
        pl.col("item").replace_strict(skills).alias("skills"),
        pl.col("correct").cast(pl.String),
        pl.col("time").cast(pl.String),
    )
