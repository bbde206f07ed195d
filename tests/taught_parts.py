"""Small models that really learnt: every spec of knowledge tracing, trained on a simulated school.

One training serves all that look at behaviour: learners nobody learnt from, cut
at a random answer, and what a client is told of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from ray_jobs.artifact import Artifact
from ray_jobs.families import family
from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.families.knowledge.world import Truth, World
from ray_jobs.intervals import Draws, Interval, interval, replicates
from ray_jobs.predictor import predict
from ray_jobs.recipe import Budget
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.team import Team

KNOWLEDGE = family("knowledge")
SCHOOL = World(learners=900, items=100)
NARROW = {"width": 32, "neighbours": 16}
SMALL: dict[str, dict[str, Any]] = {
    "rasch": {},
    "logistic": {},
    "lstm": NARROW,
    "attention": NARROW,
    "blend": NARROW,
}
# All as in the recipes, but for batches as small as the school.
BUDGET = Budget(batch_cost=1024)


@dataclass(frozen=True)
class Parts:
    """The true answers of a school, by who is learnt from and who is new."""

    truth: Truth
    train: pl.DataFrame
    validation: pl.DataFrame
    held_out: pl.DataFrame
    words: Vocabulary


@cache
def parts() -> Parts:
    with tempfile.TemporaryDirectory() as folder:
        truth = simulate(SCHOOL, Path(folder))
    table, tenth = truth.table(), pl.col("bucket") % 10
    train = table.filter(tenth < 6)
    return Parts(
        truth,
        train,
        validation=table.filter(tenth == 6),
        held_out=table.filter(tenth > 6),
        words=KNOWLEDGE.vocabulary([train]),
    )


def learnt(
    spec: Any, train: pl.DataFrame, validation: pl.DataFrame, budget: Budget = BUDGET
) -> Artifact:
    """A model trained, or fitted, as a run does it."""
    words = KNOWLEDGE.vocabulary([train])
    if hasattr(spec, "fit"):
        module = spec.fit(train, validation, words)
        return Artifact(KNOWLEDGE, spec, words, module.eval(), {}, digest="")
    torch.manual_seed(0)
    state = State.of(spec.prepare([train], words), budget, Team())
    known, held_out = (KNOWLEDGE.examples(table, words) for table in (train, validation))
    lesson = Lesson(KNOWLEDGE, words, known, held_out, budget, seed=0)
    run(state, lesson, Team(), lambda *_: None)
    state.module.load_state_dict(state.best)
    return Artifact(KNOWLEDGE, spec, words, state.module.eval(), {}, digest="")


@cache
def taught(name: str) -> Artifact:
    """A model of each spec; attention is that of the blend."""
    spec = SPECS[name](**SMALL[name])
    if name != "attention":
        return learnt(spec, parts().train, parts().validation)
    # Each member of a blend learns from its own errors alone, as if it were by itself.
    blend: Any = taught("blend").module
    return Artifact(KNOWLEDGE, spec, parts().words, blend.attentive, {}, digest="")


@dataclass(frozen=True)
class Probe:
    """A held-out learner's past up to some answer, as a client tells it, and what may come next."""

    learner: int
    history: list[dict[str, Any]]
    time: float  # of asking
    candidate: dict[str, Any]

    def then(self, correct: float) -> list[dict[str, Any]]:
        """The history with one more answer, given now to the candidate."""
        return [*self.history, {**self.candidate, "correct": correct, "time": self.time}]

    def without(self, answers: Sequence[int]) -> dict[str, Any]:
        """The request of a client to whom some answers were never given."""
        kept = [answer for number, answer in enumerate(self.history) if number not in answers]
        return {**self.body, "history": kept}

    @property
    def body(self) -> dict[str, Any]:
        """The request of a client who asks about the candidate."""
        return {"history": self.history, "time": self.time, "candidates": [self.candidate]}


@cache
def probes(count: int, shortest: int = 0) -> tuple[Probe, ...]:
    """Random learners of at least `shortest` answers, cut at random, and random items."""
    truth, rng = parts().truth, np.random.default_rng(0)
    told = parts().held_out.select("learner", "item", "skills", "correct", "time")
    groups = told.partition_by("learner", maintain_order=True, include_key=False)
    histories = [rows.to_dicts() for rows in groups if len(rows) > shortest]
    found = []
    for learner in rng.integers(len(histories), size=count).tolist():
        whole = histories[learner]
        end, item = int(rng.integers(shortest, len(whole))), int(rng.integers(len(truth.items)))
        candidate = {"item": truth.items[item], "skills": truth.skills_of(item)}
        found.append(Probe(learner, whole[:end], whole[end]["time"], candidate))
    return tuple(found)


def predicted(model: Artifact, bodies: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """(N,) what `v1/predict` says of the one candidate of each request."""
    verb = VERBS["predict"]
    requests = [verb.request.model_validate(body) for body in bodies]
    asked = [example for one in requests for example in verb.examples(one, model.vocabulary)]
    return np.concatenate(predict(model, asked)).astype(np.float64)


def levels(model: Artifact, bodies: Sequence[dict[str, Any]]) -> list[NDArray[np.float32]]:
    """The levels of `v1/mastery` of the skills of each request."""
    verb = VERBS["mastery"]
    requests = [verb.request.model_validate(body) for body in bodies]
    # The first is about the levels now, the others are about trends and intervals.
    return predict(model, [verb.examples(one, model.vocabulary)[0] for one in requests])


def rises(model: Artifact, asked: Sequence[Probe]) -> NDArray[np.float64]:
    """(N,) by how much one more right answer raises its skills, the least of them."""
    bodies = [
        {"history": history, "time": probe.time, "skills": probe.candidate["skills"]}
        for probe in asked
        for history in (probe.history, probe.then(1.0))
    ]
    found = levels(model, bodies)
    pairs = zip(found[::2], found[1::2], strict=True)
    return np.array([(after - before).min() for before, after in pairs], np.float64)


# Explanations: what it does to delete the answers that they name, or as many others.


@dataclass(frozen=True)
class Moves:
    """By how much N predictions moved when answers were deleted: those named, random ones."""

    learners: NDArray[np.int64]  # (N,)
    named: NDArray[np.float64]  # (N,) absolute
    random: NDArray[np.float64]  # (N,) absolute

    def means(self) -> dict[str, Interval]:
        """Both means and how far they are apart, with intervals by learner."""
        draws, apart = Draws.of(self.learners), self.named - self.random
        kinds = {"named": self.named, "random": self.random, "apart": apart}
        means = {name: partial(_mean, values) for name, values in kinds.items()}
        drawn = replicates(means, draws)
        return {name: interval(float(kinds[name].mean()), drawn[name]) for name in kinds}


def _mean(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    return float(np.average(values, weights=weight))


def moved(model: Artifact, asked: Sequence[Probe], *deleted: int) -> list[Moves]:
    """Delete that many of the weightiest answers of each explanation, and as many random ones."""
    rng, told = np.random.default_rng(1), _explained(model, asked)
    learners = np.array([probe.learner for probe in asked])
    whole = predicted(model, [probe.body for probe in asked])
    found = []
    for count in deleted:
        named = [probe.without(answers[:count]) for probe, answers in zip(asked, told, strict=True)]
        random = [
            probe.without(rng.choice(len(probe.history), count, replace=False).tolist())
            for probe in asked
        ]
        less, other = (np.abs(predicted(model, bodies) - whole) for bodies in (named, random))
        found.append(Moves(learners, less, other))
    return found


def _explained(model: Artifact, asked: Sequence[Probe]) -> list[list[int]]:
    """The answers that `v1/predict?explain=true` names to each, the weightiest first."""
    verb = VERBS["predict"]
    assert verb.explanation is not None
    requests = [verb.request.model_validate(probe.body) for probe in asked]
    variants = [verb.explanation.examples(request, model.vocabulary) for request in requests]
    outcomes = iter(predict(model, [variant for part in variants for variant in part]))
    reasons = [
        verb.explanation.reasons(request, [next(outcomes) for _ in part], model.vocabulary)
        for request, part in zip(requests, variants, strict=True)
    ]
    return [[reason["answer"] for reason in told] for told in reasons]
