"""What a training worker holds: `python -m tests.bench.memory`.

A log and one of four times its answers are learnt, read from this node's disk and, for
comparison, from memory: an epoch of one after an epoch of the other, each in a process of
its own, since how fast a machine is changes while one looks.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import torch

from ray_jobs.allocator import keep_freed
from ray_jobs.data.clean import SHARE_ROWS
from ray_jobs.data.tables import write_part
from ray_jobs.families import family
from ray_jobs.families.knowledge.networks import Lstm
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.recipe import Budget, Resources, as_dict
from ray_jobs.training.job import TrainJob
from ray_jobs.training.loop import State, run
from ray_jobs.training.splits import Splits, tables
from ray_jobs.training.team import Team

KNOWLEDGE = family("knowledge")
ANSWERS = 600_000  # of the smaller log
ITEMS, SKILLS, LENGTH = 2000, 100, 80
SPEC = Lstm(width=64, neighbours=0)
EPOCHS = {1: 9, 4: 5}  # by the size of the log; in the first, kernels are chosen
BUDGET = Budget(batch_cost=8192)
MB = 2**20


@dataclass(frozen=True)
class Told:
    """What a training says of itself after an epoch."""

    above: float  # MiB above idle, at most until now
    rows_per_s: float  # of this epoch


def main() -> None:
    """Print memory and speed, of either size and from either place, and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        told = {times: beside(Path(name) / str(times), times) for times in EPOCHS}
    one, four = (told[times][-1][0].above for times in (1, 4))
    print(f"memory, four times the answers / one: {four / one:.2f} ({four:.0f} / {one:.0f} MiB)")
    for times, pairs in told.items():
        ratios = [disk.rows_per_s / memory.rows_per_s for disk, memory in pairs]
        print(
            f"answers/s, disk / memory, {times * ANSWERS:,} answers: "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def beside(folder: Path, times: int) -> list[tuple[Told, Told]]:
    """Epochs from disk and from memory in turn, without the first of each."""
    uri = job(folder, times * ANSWERS, EPOCHS[times]).save()
    with apart(uri, "disk", folder / "a") as disk, apart(uri, "memory", folder / "b") as memory:
        pairs = [(disk(), memory()) for _ in range(EPOCHS[times])][1:]
    for place, epochs in zip(("disk", "memory"), zip(*pairs, strict=True), strict=True):
        print(
            f"{times * ANSWERS:,} answers from {place}: {epochs[-1].above:.0f} MiB above idle, "
            f"{statistics.median(one.rows_per_s for one in epochs):,.0f} answers/s",
            flush=True,
        )
    return pairs


def job(folder: Path, answers: int, epochs: int = 1) -> TrainJob:
    """A training of a log of so many answers, as the split stage would leave it."""
    for name, count in (("train", answers), ("validation", answers // 20)):
        for number, first in enumerate(range(0, count, SHARE_ROWS)):
            rows = min(SHARE_ROWS, count - first)
            write_part(str(folder / name), number, some_answers(rows, seed=first))
    asked = TrainJob(
        name="bench",
        family="knowledge",
        spec=as_dict(SPEC),
        train=str(folder / "train"),
        validation=str(folder / "validation"),
        output=str(folder / "output"),
        seed=0,
        workers=1,
        budget=replace(BUDGET, epochs=epochs),
        resources=Resources(),
        about={},
    )
    Splits.seen(asked, tables(asked.train)).note_vocabulary()
    return asked


def some_answers(count: int, seed: int) -> pl.DataFrame:
    """Answers by chance: what is in them costs the same as what is learnt from."""
    random = np.random.default_rng(seed)
    items = random.integers(0, ITEMS, count)
    learner = np.arange(count) // LENGTH
    return pl.DataFrame(
        {
            "learner": [f"{seed}-{n:032x}" for n in learner],
            "item": [f"item {i}" for i in items],
            "skills": [[f"skill {i % SKILLS}"] for i in items],
            "correct": (random.random(count) < 0.6).astype(float),
            "time": np.arange(count, dtype=float),
            "position": np.arange(count),
            "bucket": learner,
            "split": [None] * count,
            "scored": [True] * count,
            "response_s": [None] * count,
            "about": [None] * count,
        },
        schema=CLEAN,
    )


@contextmanager
def apart(uri: str, place: str, home: Path) -> Iterator[Callable[[], Told]]:
    """A training in a process of its own, which learns an epoch at each call."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, uri, place, str(home)))
    process.start()
    there.close()

    def epoch() -> Told:
        here.send(None)
        told: Told = here.recv()
        return told

    yield epoch
    here.close()
    process.join()


def _work(pipe: Connection, uri: str, place: str, home: str) -> None:
    """What a worker does, without Ray: an epoch when it is asked for one."""
    os.environ["LYCEUM_HOME"] = home
    torch.set_num_threads(1)
    keep_freed()
    asked = TrainJob.load(uri)
    idle = psutil.Process().memory_full_info().uss
    with peak() as uss:
        splits = Splits.of(asked)
        lesson = splits.lesson()
        if place == "memory":
            lesson = replace(lesson, train=list(lesson.train), validation=list(lesson.validation))
        state = State.of(SPEC.build(splits.vocabulary), asked.budget, Team())

        def tell(done: State, figures: dict[str, float]) -> None:
            pipe.send(Told((max(uss) - idle) / MB, figures["rows_per_s"]))
            if done.epoch < asked.budget.epochs:
                pipe.recv()

        pipe.recv()
        run(state, lesson, Team(), tell)


@contextmanager
def peak() -> Iterator[list[int]]:
    """This process's unique set size, a sample each twentieth of a second."""
    samples: list[int] = []
    done = threading.Event()
    process = psutil.Process()

    def look() -> None:
        while not done.wait(0.05):
            samples.append(process.memory_full_info().uss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield samples
    finally:
        time.sleep(0.1)
        done.set()
        watcher.join()


if __name__ == "__main__":
    main()
