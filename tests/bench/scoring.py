"""How fast a whole log is scored: `python -m tests.bench.scoring`.

The network that `lyceum run knowledge` trains says what it thinks of a log, and of one of four
times its answers, on two CPUs of a Ray: a prediction of every answer, and the mastery of every
skill that a learner practised.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray

from ray_jobs import artifact, scoring
from ray_jobs.data.clean import SHARE_ROWS
from ray_jobs.data.tables import write_part
from ray_jobs.families import family, recipe
from ray_jobs.scoring import Scoring
from tests.bench.memory import some_answers

KNOWLEDGE = family("knowledge")
ANSWERS = 1_000_000
CPUS = 2
MB = 2**20


def main() -> None:
    """Print answers per second, and what a worker holds for either size."""
    held = []
    with tempfile.TemporaryDirectory() as name, _ray():
        folder = Path(name)
        model, digest = _artifact(folder / "model")
        _scored(
            folder / "first", model, digest, CPUS * scoring.PIECE_ROWS
        )  # processes start, and import
        for times in (1, 4):
            answers = times * ANSWERS
            with _peak() as uss:
                rows, seconds = _scored(folder / str(times), model, digest, answers)
            held.append(max(uss) / MB)
            print(
                f"{answers:,} answers scored: {answers / seconds:,.0f} a second on {CPUS} CPUs, "
                f"{rows['mastery']:,} rows of mastery; a worker holds {held[-1]:.0f} MiB",
                flush=True,
            )
    print(f"memory, four times the answers / one: {held[1] / held[0]:.2f}")


def _artifact(folder: Path) -> tuple[str, str]:
    """The network as it is built, since weights cost the same whatever they have learnt."""
    spec: Any = recipe("knowledge").spec
    words = KNOWLEDGE.vocabulary([some_answers(SHARE_ROWS, seed=0)])
    digest = artifact.write(
        folder, kind="knowledge", spec=spec, vocabulary=words, module=spec.build(words), about={}
    )
    return str(folder), digest


def _scored(folder: Path, model: str, digest: str, answers: int) -> tuple[dict[str, int], float]:
    """The rows of each table, and the seconds it took."""
    table = str(folder / "table")
    for number, first in enumerate(range(0, answers, SHARE_ROWS)):
        write_part(table, number, some_answers(min(SHARE_ROWS, answers - first), seed=first))
    asked = Scoring(model, digest, table, "content", str(folder / "out"))
    begin = time.perf_counter()
    rows = scoring.run(asked, "learner", scoring.on_ray(asked))
    return rows, time.perf_counter() - begin


@contextmanager
def _ray() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as temp:
        ray.init(address="local", num_cpus=CPUS, log_to_driver=False, _temp_dir=temp)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Unique set size of the workers that score, the largest of each look."""
    samples: list[int] = [0]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::score"):
                        samples.append(process.memory_full_info().uss)
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    main()
