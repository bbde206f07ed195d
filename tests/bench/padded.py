"""What the usual way to trace knowledge costs: `python -m tests.bench.padded`.

Deep knowledge tracing as the toolkits write it (histories cut at 200 answers and padded to
200, an output for every concept of which one is chosen by a one-hot vector, a loss in double
precision), and attention with a mask over all pairs of 200 steps, beside our networks of the
same size: an epoch of each in turn on the same learners, each in a process set up as its users
have it. Then what the first of each pair says of the answers of the test learners.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ray_jobs.allocator import keep_freed
from ray_jobs.artifact import Artifact
from ray_jobs.data.tables import read_parquet
from ray_jobs.families import family
from ray_jobs.families.knowledge.networks import Attention, Lstm
from ray_jobs.metrics.binary import prepared_auc
from ray_jobs.predictor import predict
from ray_jobs.recipe import Budget
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.team import Team
from tests.bench.accuracy import DATA, LOGS, prepared
from tests.bench.toolkits import STEPS, THREADS, Apart, read

KNOWLEDGE = family("knowledge")
LOG = "ASSIST2009-events"
BUDGET = Budget(batch_cost=8192, learning_rate=7e-3, precision="native")
LEARNERS = 500  # of whom attention learns: an epoch of all takes minutes with a mask


def main() -> None:
    """Print answers per second side by side, and what the longest trained of each pair is worth."""
    if not (DATA / LOGS[LOG]).exists():
        print(f"tests.bench.padded: skipped, {DATA / LOGS[LOG]} is not there")
        return
    torch.set_num_threads(THREADS)
    keep_freed()
    with tempfile.TemporaryDirectory() as folder:
        uris = prepared(LOG, "N", Path(folder))
        theirs = Apart("LSTM-200", uris, None)
        lstm = _beside("LSTM-200", Lstm(width=200), theirs, read(uris, None), 9)
        _worth(theirs, lstm, read_parquet(uris["test"]))
        theirs.end()
        theirs = Apart("attention 256x2", uris, LEARNERS)
        _beside("attention 256x2", Attention(width=256), theirs, read(uris, LEARNERS), 4)
        theirs.end()


def _beside(
    name: str, spec: Any, theirs: Apart, parts: dict[str, pl.DataFrame], epochs: int
) -> Artifact:
    """Train ours, an epoch of the other after each of its epochs, and print the ratio of speeds."""
    rates: list[tuple[float, float]] = []

    def say(_: State, figures: dict[str, float]) -> None:
        rates.append((figures["rows_per_s"], theirs.asked("epoch")))

    words = KNOWLEDGE.vocabulary([parts["train"]])
    torch.manual_seed(0)
    network = spec.prepare([parts["train"]], words)
    budget = replace(BUDGET, epochs=epochs)
    state = State.of(network, budget, Team())
    known, held_out = (KNOWLEDGE.examples(parts[n], words) for n in ("train", "validation"))
    run(state, Lesson(KNOWLEDGE, words, known, held_out, budget, seed=0), Team(), say)
    state.module.load_state_dict(state.best)
    later = rates[1:]  # in the first, memory is found and kernels are chosen
    ratio = statistics.median(ours / other for ours, other in later)
    ours, padded = (statistics.median(one) for one in zip(*later, strict=True))
    print(
        f"{name}, training answers/s: ours / padded to {STEPS}: {ratio:.1f} "
        f"({ours:,.0f} / {padded:,.0f})",
        flush=True,
    )
    return Artifact(KNOWLEDGE, spec, words, state.module.eval(), {}, digest="")


def _worth(theirs: Apart, model: Artifact, test: pl.DataFrame) -> None:
    """Print both AUCs on the test answers that the other predicts."""
    more, rows, chances = theirs.asked("worth")
    truth = (test["correct"].to_numpy()[rows] > 0.5).astype(np.float64)
    own = np.concatenate(predict(model, KNOWLEDGE.examples(test, model.vocabulary)))
    mine, other = (
        prepared_auc(truth, one.astype(np.float64))(np.ones(len(rows)))
        for one in (own[rows], chances)
    )
    print(
        f"AUC on {len(rows):,} answers of the test learners: ours after 9 epochs {mine:.4f}, "
        f"padded after {9 + more} {other:.4f}"
    )


if __name__ == "__main__":
    main()
