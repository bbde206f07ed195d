"""What a GPU makes of the recipes: `python -m tests.bench.accelerator [FOLDER]`.

The ASSIST2009 events are learnt on the CPU and on the GPU, at full and at half
precision, compiled and not; the figures stand side by side with the card's limits.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.flop_counter import FlopCounterMode

from ray_jobs.artifact import Artifact
from ray_jobs.families import family
from ray_jobs.families.knowledge.networks import Attention, Lstm
from ray_jobs.metrics import KINDS
from ray_jobs.predictor import predict
from ray_jobs.recipe import Budget
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.team import Team, on_device
from tests.assist_parts import DATA, splits

KNOWLEDGE = family("knowledge")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
AUC = KINDS["binary"].metrics["auc"]
LARGE = Attention(width=512, layers=6, heads=8)  # what a laptop would not train


@dataclass(frozen=True)
class Learnt:
    """What came of one training."""

    auc: float
    rows_per_s: float  # of all epochs but the first, in which kernels are chosen and compiled
    data: float  # share of the time that went into waiting for batches
    memory: float  # GiB at most
    busy: float  # share of the time in which the GPU had work, as its driver says


def main() -> None:
    """Print a line for each training."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    train, validation, test = splits(folder)
    words = KNOWLEDGE.vocabulary([train])
    known, held_out = (KNOWLEDGE.examples(table, words) for table in (train, validation))
    lesson = Lesson(KNOWLEDGE, words, known, held_out, Budget(), seed=0)
    print(limits())
    for spec in (Lstm(), Attention(), LARGE):
        print(arithmetic(spec, lesson), flush=True)
    for spec, what, device, budget in trainings():
        torch.manual_seed(0)
        module = spec.prepare([train], words)
        # Once over, the log is too short to keep a card at work between two epochs.
        part = list(known) * (8 if spec is LARGE else 1)
        taught = replace(lesson, train=part, budget=budget)
        learnt = trained(module, taught, Team(device=device), test, spec)
        print(
            f"{what}: AUC {learnt.auc:.4f}, {learnt.rows_per_s:,.0f} answers/s, "
            f"waiting for data {learnt.data:.0%}, GPU busy {learnt.busy:.0%}, "
            f"memory {learnt.memory:.2f} GiB",
            flush=True,
        )


def trainings() -> Iterator[tuple[Any, str, torch.device, Budget]]:
    """What is trained, where and how."""
    usual = Budget()
    large = replace(usual, batch_cost=65536, epochs=3)
    for spec, budget in ((LARGE, large), (Lstm(), usual), (Attention(), usual)):
        what = f"{spec.name} {spec.width}"
        yield spec, f"{what} on GPU, float32", GPU, replace(budget, precision="float32")
        yield spec, f"{what} on GPU, bfloat16", GPU, budget
        if spec is not LARGE:
            yield spec, f"{what} on CPU", CPU, budget
    yield Lstm(), "lstm 128 on GPU, bfloat16, compiled", GPU, replace(usual, compiled=True)


def trained(module: Any, lesson: Lesson, team: Team, test: pl.DataFrame, spec: Any) -> Learnt:
    """Train, and predict the test split on the CPU, as it is served."""
    told: list[dict[str, float]] = []
    on_gpu = team.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    state = State.of(module, lesson.budget, team)
    with utilisation(on_gpu) as busy:
        run(state, lesson, team, lambda _, figures: told.append(figures))
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    state.module.load_state_dict(state.best)
    served = spec.build(lesson.vocabulary)
    served.load_state_dict({name: value.cpu() for name, value in state.best.items()})
    model = Artifact(KNOWLEDGE, spec, lesson.vocabulary, served.eval(), {}, digest="")
    chances = np.concatenate(predict(model, KNOWLEDGE.examples(test, lesson.vocabulary)))
    kinds = ("data_seconds", "compute_seconds", "communication_seconds")
    spent = [sum(figures[kind] for kind in kinds) for figures in told[1:]]
    return Learnt(
        auc=float(AUC(test["correct"], chances)),
        rows_per_s=statistics.median(figures["rows_per_s"] for figures in told[1:]),
        data=sum(figures["data_seconds"] for figures in told[1:]) / sum(spent),
        memory=memory,
        busy=statistics.mean(busy) / 100 if busy else 0.0,
    )


def arithmetic(spec: Any, lesson: Lesson) -> str:
    """How much of what the card can multiply a step of a network multiplies."""
    team = Team(device=GPU)
    module = spec.build(lesson.vocabulary).to(GPU)
    chosen = sorted(lesson.train, key=KNOWLEDGE.cost)[-64:]
    batch = on_device(KNOWLEDGE.collate(chosen, lesson.vocabulary), GPU)

    def step() -> None:
        with team.autocast(lesson.budget):
            loss = KNOWLEDGE.loss(module(batch), batch)
        torch.autograd.backward(loss)

    with FlopCounterMode(display=False) as counter:
        step()
    rate = counter.get_total_flops() / seconds(step) / 1e12
    size = batch.items.numel()
    return f"{spec.name} {spec.width}: {rate:.1f} TFLOP/s in a step of {size:,} positions"


def limits() -> str:
    """What the card can do at most."""
    one = torch.randn(8192, 8192, device=GPU, dtype=torch.bfloat16)
    rate = 2 * 8192**3 / seconds(lambda: one @ one) / 1e12
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    name = torch.cuda.get_device_name()
    return f"{name}: {total:.0f} GiB, {rate:.0f} TFLOP/s bfloat16 (torch {torch.__version__})"


def seconds(work: Callable[[], Any]) -> float:
    """Of one call, the median of twenty."""
    taken = []
    for _ in range(20):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


@contextmanager
def utilisation(wanted: bool) -> Iterator[list[int]]:
    """Per cent of the time with work on the GPU, a sample each tenth of a second."""
    samples: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            samples.append(torch.cuda.utilization())

    watcher = threading.Thread(target=look)
    if wanted:
        watcher.start()
    try:
        yield samples
    finally:
        done.set()
        if wanted:
            watcher.join()


if __name__ == "__main__":
    main()
