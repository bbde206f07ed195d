"""What a training worker holds: `python -m tests.bench.memory`.

A log and one of four times its answers are learnt for an epoch, read from this
node's disk and, for comparison, from memory; each in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import psutil
import torch

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
BUDGET = Budget(epochs=1, batch_cost=8192)
MB = 2**20


def main() -> None:
    """Print memory and speed, of either size and from either place, and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        jobs = {times: job(Path(name) / str(times), times * ANSWERS) for times in (1, 4)}
        told = {
            (times, place): measured(asked, place)
            for times, asked in jobs.items()
            for place in ("disk", "memory")
        }
    for (times, place), found in told.items():
        print(
            f"{times * ANSWERS:,} answers from {place}: {found['above']:.0f} MiB above idle, "
            f"{found['rows_per_s']:,.0f} answers/s"
        )
    one, four = told[1, "disk"]["above"], told[4, "disk"]["above"]
    print(f"memory, four times the answers / one: {four / one:.2f} ({four:.0f} / {one:.0f} MiB)")
    for times in (1, 4):
        disk, memory = (told[times, place]["rows_per_s"] for place in ("disk", "memory"))
        print(f"answers/s, disk / memory, {times * ANSWERS:,} answers: {disk / memory:.2f}")


def job(folder: Path, answers: int) -> TrainJob:
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
        budget=BUDGET,
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
        },
        schema=CLEAN,
    )


def measured(asked: TrainJob, place: str) -> dict[str, float]:
    """Train in a process of its own; its memory and its speed."""
    command = [sys.executable, "-m", "tests.bench.memory", asked.save(), place]
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            command, env={"LYCEUM_HOME": home, "OMP_NUM_THREADS": "1"}, check=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
    found: dict[str, float] = orjson.loads(done.stdout)
    return found


def work(uri: str, place: str) -> dict[str, float]:
    """What a worker does, without Ray: memory above idle in MiB, and answers/s."""
    torch.set_num_threads(1)
    asked = TrainJob.load(uri)
    told: list[dict[str, float]] = []
    idle = psutil.Process().memory_full_info().uss
    with peak() as uss:
        splits = Splits.of(asked)
        lesson = splits.lesson()
        if place == "memory":
            lesson = replace(lesson, train=list(lesson.train), validation=list(lesson.validation))
        state = State.of(SPEC.build(splits.vocabulary), BUDGET, Team())
        run(state, lesson, Team(), lambda _, figures: told.append(figures))
    return {"above": (max(uss) - idle) / MB, "rows_per_s": told[-1]["rows_per_s"]}


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
    if len(sys.argv) == 3:
        sys.stdout.write(orjson.dumps(work(*sys.argv[1:])).decode())
    else:
        main()
