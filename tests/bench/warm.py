"""What it is worth to begin from a champion: `python -m tests.bench.warm`.

A public log grows: a champion learns from a share of its learners, then a network from all of
them, once from nothing and once from the champion, as `start.champion` has it. One line for
each share; differences are paired, on the same answers of the test learners.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from ray_jobs.allocator import keep_freed
from ray_jobs.artifact import Artifact
from ray_jobs.data.tables import read_parquet
from ray_jobs.evaluation import Evaluation, compare, evaluate
from ray_jobs.families import recipe
from ray_jobs.families.knowledge.networks import Lstm
from ray_jobs.intervals import Interval
from ray_jobs.predictor import predict
from ray_jobs.privacy import salted
from ray_jobs.training import warm
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.team import Team
from tests.bench.accuracy import KNOWLEDGE, prepared

LOG = "ASSIST2009-events"
SHARES = (0.5, 0.7, 0.9)  # of the learners, whom the champion learnt from
RECIPE = recipe("knowledge")
SPEC = Lstm()  # as the recipe has it


@dataclass(frozen=True)
class Made:
    """A model, what it took and how it does on the test split."""

    model: Artifact
    seconds: float  # of training
    evaluation: Evaluation

    @property
    def auc(self) -> Interval:
        return self.evaluation.metrics["auc"]


def main() -> None:
    """A line for each share."""
    torch.set_num_threads(2)
    keep_freed()
    columns = ("learnt before", "AUC before", "from nothing", "s", "from the champion", "s", "gain")
    print(*columns, sep="\t")
    with tempfile.TemporaryDirectory() as folder:
        splits = prepared(LOG, "N", Path(folder))
        parts = {name: read_parquet(uri) for name, uri in splits.items()}
        cold = made(parts, parts["train"], None)
        for share in SHARES:
            place = salted(parts["train"]["bucket"], "learnt before")
            champion = made(parts, parts["train"].filter(place < share), None)
            found = made(parts, parts["train"], champion.model)
            gain = compare(found.evaluation, cold.evaluation)["auc"]
            print(
                f"{share:.0%}",
                f"{champion.auc.value:.4f}",
                f"{cold.auc.value:.4f}\t{cold.seconds:.0f}",
                f"{found.auc.value:.4f}\t{found.seconds:.0f}",
                f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})",
                sep="\t",
                flush=True,
            )


def made(parts: dict[str, pl.DataFrame], train: pl.DataFrame, before: Artifact | None) -> Made:
    """A network that learnt from a table, from nothing or from another."""
    begin = time.perf_counter()
    budget = RECIPE.budget
    words = KNOWLEDGE.vocabulary([train])
    if before is not None:
        words = before.vocabulary.extended([train])
        budget = replace(budget, epochs=RECIPE.start.epochs)
    torch.manual_seed(0)
    network = SPEC.prepare([train], words)
    if before is not None:
        warm.begin(network, before.module, RECIPE.start.kept)
    known, held_out = (KNOWLEDGE.examples(one, words) for one in (train, parts["validation"]))
    lesson = Lesson(KNOWLEDGE, words, known, held_out, budget, seed=0)
    state = run(State.of(network, budget, Team()), lesson, Team(), lambda *_: None)
    state.module.load_state_dict(state.best)
    seconds = time.perf_counter() - begin
    model = Artifact(KNOWLEDGE, SPEC, words, state.module.eval(), {}, digest="")
    told = predict(model, KNOWLEDGE.examples(parts["test"], words))
    chances = np.concatenate(told).astype(np.float64)
    test = parts["test"].filter("scored")
    rows = test.select(group="learner", target=pl.col("correct").cast(pl.Float64))
    target = KNOWLEDGE.target(words)
    return Made(model, seconds, evaluate(rows, chances, target, metrics=("auc",)))


if __name__ == "__main__":
    main()
