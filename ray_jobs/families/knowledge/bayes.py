"""The honest ceiling: a Bayes filter that knows items and laws, but not the learners.

It sees the histories a model sees and says, for every answer, how likely it
was to be correct given strictly earlier ones. No model can do better on
average, so the gap to it is what a model has yet to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from ray_jobs.errors import ContractError
from ray_jobs.families.knowledge.world import Truth, chance, faded, practised

PARTICLES = 2000
LEARNERS_AT_ONCE = 64  # their particles stay in the processor's cache
SHRINK = 0.95  # of resampled particles towards their mean, before they are spread again

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """The histories of L learners laid end to end, A answers in all, as numbers."""

    items: NDArray[np.int64]  # (A,) number of the item in the truth
    correct: NDArray[np.float32]  # (A,) 0..1
    times: NDArray[np.float64]  # (A,) unix seconds
    starts: NDArray[np.int64]  # (L,) row of a learner's first answer
    lengths: NDArray[np.int64]  # (L,)


@dataclass
class Cloud:
    """N particles for each of n learners: what they may be like, as far as one can tell."""

    state: Matrix  # (n, 2 S + 1, N): ability, gain by practice, logarithm of pace
    weights: Matrix  # (n, N), each row summing to 1
    seen: NDArray[np.float64]  # (n, S) unix seconds of the last practice


def filtered(
    truth: Truth, table: pl.DataFrame, *, particles: int = PARTICLES
) -> NDArray[np.float64]:
    """P(correct | strictly earlier answers) of each row of a clean table, in its order.

    Rows of one learner must be together and in order of time; learners may
    have any names. Raises ContractError for items the truth does not know.
    """
    return _run(truth, table, particles)[0].astype(np.float64)


def mastery(truth: Truth, table: pl.DataFrame, *, particles: int = PARTICLES) -> pl.DataFrame:
    """Expected ability (logits) of each learner in each skill, right after the last answer.

    One row per learner, in the order of the table, one column per skill.
    """
    abilities = _run(truth, table, particles)[1]
    learners = table["learner"].unique(maintain_order=True)
    columns = [pl.Series(name, abilities[:, s]) for s, name in enumerate(truth.skills)]
    return pl.DataFrame([learners, *columns])


def _run(truth: Truth, table: pl.DataFrame, particles: int) -> tuple[Matrix, Matrix]:
    """Predictions (A,) and expected abilities (L, S)."""
    answers = _numbered(truth, table)
    predictions = np.empty(len(answers.items), np.float32)
    abilities = np.empty((len(answers.lengths), len(truth.skills)), np.float32)
    # Longest first: those still answering at any step are then the first rows.
    order = np.argsort(-answers.lengths, kind="stable")
    for first in range(0, len(order), LEARNERS_AT_ONCE):
        who = order[first : first + LEARNERS_AT_ONCE]
        # The same draws for all: what is said of a learner depends on no other learner.
        rng = np.random.default_rng([truth.world.seed, 1])
        cloud = _prior(truth, len(who), particles, rng)
        for step in range(answers.lengths[who[0]]):
            rows = answers.starts[who[answers.lengths[who] > step]] + step
            predictions[rows] = _observe(truth, cloud, answers, rows, rng)
            _resample(cloud, len(rows), rng)
        ends = answers.times[answers.starts[who] + answers.lengths[who] - 1]
        abilities[who] = _expected(truth, cloud, ends)
    return predictions, abilities


def _numbered(truth: Truth, table: pl.DataFrame) -> Answers:
    unknown = table.filter(~pl.col("item").is_in(truth.items))
    if unknown.height:
        raise ContractError(
            f"item {unknown['item'][0]!r} is not of this simulated world; "
            "compare a model with the filter on the log of the same simulation"
        )
    if table["time"].null_count():
        raise ContractError("answers without a time; the filter needs one for each")
    learner = table["learner"].rle_id().to_numpy()
    starts = np.flatnonzero(np.diff(learner, prepend=-1))
    if len(starts) != table["learner"].n_unique():
        raise ContractError("rows of one learner lie apart; sort the table by learner, then time")
    numbers = {item: i for i, item in enumerate(truth.items)}
    return Answers(
        items=table["item"].replace_strict(numbers, return_dtype=pl.Int64).to_numpy(),
        correct=table["correct"].cast(pl.Float32).to_numpy(),
        times=table["time"].cast(pl.Float64).to_numpy(),
        starts=starts,
        lengths=np.diff(starts, append=len(learner)),
    )


def _prior(truth: Truth, learners: int, particles: int, rng: Generator) -> Cloud:
    """What is known of a learner before the first answer: the population."""
    world, skills = truth.world, len(truth.skills)
    half = rng.standard_normal((skills + 2, -(-particles // 2)))
    # Each draw with its mirror image: the prior's means come out exact.
    draws = np.hstack([half, -half])[:, :particles]
    ability = world.general_mean + world.general_sd * draws[0] + world.skill_sd * draws[1:-1]
    log_pace = np.log(world.pace) + world.pace_sd * draws[-1:]
    state = np.vstack([ability, np.zeros_like(ability), log_pace]).astype(np.float32)
    return Cloud(
        state=np.repeat(state[None], learners, axis=0),
        weights=np.full((learners, particles), 1.0 / particles, np.float32),
        seen=np.zeros((learners, skills)),
    )


def _observe(
    truth: Truth, cloud: Cloud, answers: Answers, rows: NDArray[np.int64], rng: Generator
) -> Matrix:
    """Predict the answers in these rows, then learn from them; the first n learners gave them."""
    items, n = answers.items[rows], len(rows)
    who, skill = np.nonzero(truth.item_skills[items])  # (P,): pairs of an answer and a skill
    counts = truth.item_skills[items].sum(axis=1)  # (n,)
    firsts = counts.cumsum() - counts  # (n,): where the pairs of an answer start
    gains = len(truth.skills) + skill
    elapsed = answers.times[rows][who] - cloud.seen[who, skill]
    held = faded(cloud.state[who, gains], elapsed[:, None], truth.world)  # (P, N)
    known = np.add.reduceat(cloud.state[who, skill] + held, firsts)
    ability = known / counts[:, None].astype(np.float32)
    odds = chance(
        ability,
        truth.difficulty[items, None].astype(np.float32),
        truth.discrimination[items, None].astype(np.float32),
    )
    predicted: Matrix = np.sum(cloud.weights[:n] * odds, axis=1)
    correct = answers.correct[rows, None]
    # Partial credit c counts as c of a right answer; for 0 and 1 this is the plain likelihood.
    cloud.weights[:n] *= correct * odds + (1.0 - correct) * (1.0 - odds)
    cloud.weights[:n] /= cloud.weights[:n].sum(axis=1, keepdims=True)
    shared = rng.standard_normal((len(truth.skills), odds.shape[1]), dtype=np.float32)
    pace = np.exp(cloud.state[who, -1])
    cloud.state[who, gains] = practised(held, pace, shared[skill], truth.world)
    cloud.seen[who, skill] = answers.times[rows][who]
    return predicted


def _resample(cloud: Cloud, active: int, rng: Generator) -> None:
    """Draw anew where fewer than half of the particles carry the weight.

    Systematic resampling, then the kernel of Liu and West (2001), so that what
    never changes (ability, pace) does not collapse onto a few values.
    """
    # Drawn whether used or not, or one learner's answers would alter another's draws.
    offset, turn = rng.random(2)
    weights = cloud.weights[:active]
    particles = weights.shape[1]
    thin = np.flatnonzero(1.0 / np.square(weights).sum(axis=1) < particles / 2)
    if not len(thin):
        return
    reached = weights[thin].astype(np.float64).cumsum(axis=1)
    reached = reached / reached[:, -1:] + np.arange(len(thin))[:, None]
    aims = (np.arange(particles) + offset) / particles + np.arange(len(thin))[:, None]
    picks = np.searchsorted(reached.ravel(), aims.ravel()).reshape(aims.shape)
    picks -= np.arange(len(thin))[:, None] * particles
    drawn = np.take_along_axis(cloud.state[thin], picks[:, None, :], axis=2)
    centre = drawn.mean(axis=2, keepdims=True)
    # A partner of the same posterior instead of normal noise keeps all covariances.
    partner = np.roll(drawn, 1 + int(turn * (particles - 1)), axis=2)
    spread = np.float32(np.sqrt(1.0 - SHRINK**2))
    cloud.state[thin] = centre + SHRINK * (drawn - centre) + spread * (partner - centre)
    cloud.weights[thin] = 1.0 / particles


def _expected(truth: Truth, cloud: Cloud, now: NDArray[np.float64]) -> Matrix:
    """Mean ability (n, S) of each learner at a time of his own."""
    skills = len(truth.skills)
    elapsed = (now[:, None] - cloud.seen)[:, :, None]
    held = faded(cloud.state[:, skills : 2 * skills], elapsed, truth.world)
    mean: Matrix = np.einsum("nsp,np->ns", cloud.state[:, :skills] + held, cloud.weights)
    return mean
