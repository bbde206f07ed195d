"""What recommended practice is worth: `python -m tests.bench.practice`.

New learners of the simulated school practise what `v1/next` recommends, items drawn at
random, or the easiest first, each time out of the same few; what they have gained in
truth is compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from ray_jobs.artifact import Artifact
from ray_jobs.families import family, recipe
from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import DAY_S, Truth, World, chance, faded, practised
from ray_jobs.predictor import predict
from tests.taught_parts import learnt

KNOWLEDGE = family("knowledge")
LEARNERS, STEPS, OFFERED = 200, 20, 20
PAUSE_S = 60  # from answer to answer
REPLICATES = 1000

Floats = NDArray[np.float64]
Items = NDArray[np.int64]


def main() -> None:
    """Print the mean gain of each way to practise, and of the first over the others."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        truth = simulate(World(), Path(folder))
    model = trained(truth)
    ways: dict[str, Callable[..., Items]] = {
        "recommended": recommended,
        "random": at_random,
        "easiest first": easiest,
    }
    gained = {name: practice(truth, model, choose) for name, choose in ways.items()}
    for name, gains in gained.items():
        print(f"{name}: {interval(gains)} logits gained in a skill, of {STEPS} items each")
    for name in ("random", "easiest first"):
        print(f"recommended over {name}: {interval(gained['recommended'] - gained[name])}")


def trained(truth: Truth) -> Artifact:
    """The demo's network, on the answers of all but every tenth learner."""
    asked, table = recipe("knowledge-demo"), truth.table()
    held_out = pl.col("bucket") % 10 == 0
    return learnt(asked.spec, table.filter(~held_out), table.filter(held_out), asked.budget)


@dataclass
class School:
    """Learners that nobody has seen, as they are and as their histories tell."""

    truth: Truth
    ability: Floats  # (L, S) logits, before any practice
    pace: Floats  # (L,)
    gain: Floats  # (L, S) logits, as of `seen`
    seen: Floats  # (L, S) unix seconds
    now: float
    histories: list[list[dict[str, Any]]]

    @classmethod
    def of(cls, truth: Truth, rng: np.random.Generator) -> School:
        world, shape = truth.world, (LEARNERS, len(truth.skills))
        general = rng.normal(world.general_mean, world.general_sd, (LEARNERS, 1))
        return cls(
            truth,
            ability=general + rng.normal(0.0, world.skill_sd, shape),
            pace=world.pace * np.exp(rng.normal(0.0, world.pace_sd, LEARNERS)),
            gain=np.zeros(shape),
            seen=np.full(shape, float(world.start)),
            now=world.start + world.days * DAY_S / 2,
            histories=[[] for _ in range(LEARNERS)],
        )

    @property
    def held(self) -> Floats:
        return faded(self.gain, self.now - self.seen, self.truth.world)

    def answer(self, items: Items, rng: np.random.Generator) -> None:
        """Every learner answers an item, as the simulator lets them."""
        truth, held = self.truth, self.held
        uses = truth.item_skills[items]
        ability = np.mean(self.ability + held, axis=1, where=uses)
        odds = chance(ability, truth.difficulty[items], truth.discrimination[items])
        noise = rng.standard_normal(uses.shape)
        after = practised(held, self.pace[:, None], noise, truth.world)
        self.gain = np.where(uses, after, self.gain)
        self.seen = np.where(uses, self.now, self.seen)
        right = rng.random(LEARNERS) < odds
        for history, item, correct in zip(self.histories, items.tolist(), right, strict=True):
            given = {**named(truth, item), "correct": float(correct), "time": self.now}
            history.append(given)
        self.now += PAUSE_S


def practice(truth: Truth, model: Artifact, choose: Callable[..., Items]) -> Floats:
    """(L,) mean true gain in a skill of learners who practise what is chosen for them."""
    # Each way has the same learners, offers and luck.
    school = School.of(truth, np.random.default_rng(1))
    rng, there = np.random.default_rng(2), np.flatnonzero(truth.released <= school.now)
    for _ in range(STEPS):
        offered = np.stack([rng.choice(there, OFFERED, replace=False) for _ in range(LEARNERS)])
        school.answer(choose(school, model, offered), rng)
    gained: Floats = school.held.mean(axis=1)
    return gained


def recommended(school: School, model: Artifact, offered: Items) -> Items:
    told = asked(school, model, offered, "next", count=1)
    best = [answer["recommendations"][0]["item"] for answer in told]
    return np.array([school.truth.items.index(name) for name in best])


def easiest(school: School, model: Artifact, offered: Items) -> Items:
    told = asked(school, model, offered, "predict")
    chances = [[one["probability"] for one in answer["predictions"]] for answer in told]
    picked: Items = offered[np.arange(LEARNERS), np.argmax(chances, axis=1)]
    return picked


def at_random(_school: School, _model: Artifact, offered: Items) -> Items:
    return offered[:, 0]


def asked(
    school: School, model: Artifact, offered: Items, name: str, **more: Any
) -> list[dict[str, Any]]:
    """What a verb says to each learner of the items offered."""
    verb = VERBS[name]
    requests = [
        verb.request.model_validate(
            {
                "history": history,
                "time": school.now,
                "candidates": [named(school.truth, item) for item in items],
                **more,
            }
        )
        for history, items in zip(school.histories, offered.tolist(), strict=True)
    ]
    examples = [verb.examples(request, model.vocabulary) for request in requests]
    outcomes = iter(predict(model, [example for part in examples for example in part]))
    return [
        verb.answer(request, [next(outcomes) for _ in part], model.vocabulary)
        for request, part in zip(requests, examples, strict=True)
    ]


def named(truth: Truth, item: int) -> dict[str, Any]:
    return {"item": truth.items[item], "skills": truth.skills_of(item)}


def interval(values: Sequence[float] | Floats) -> str:
    """The mean, and where it lies in 95 % of samples of as many learners."""
    rng = np.random.default_rng(0)
    means = np.mean(rng.choice(values, (REPLICATES, len(values))), axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{np.mean(values):+.4f} ({low:+.4f} to {high:+.4f})"


if __name__ == "__main__":
    main()
