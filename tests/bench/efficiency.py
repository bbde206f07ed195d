"""What training through Ray costs: `python -m tests.bench.efficiency`.

Two workers against two processes that know nothing of each other; an epoch under
Ray Train against one of the bare loop; a run against the work of its stages.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from flows.platform.environment import LOOPBACK, environment, prepare
from ray_jobs.allocator import keep_freed
from ray_jobs.families.knowledge.networks import Attention, Lstm
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.recipe import Budget, Resources, as_dict
from ray_jobs.settings import Settings
from ray_jobs.training import events
from ray_jobs.training.job import TrainJob
from ray_jobs.training.loop import State, run
from ray_jobs.training.splits import Splits
from ray_jobs.training.team import Team
from tests.bench import memory
from tests.installation import SCHOOL, Installation

PAIRS = 3
ANSWERS = 120_000
EPOCHS = 4  # of which the first is not counted: in it memory is found and kernels are chosen
# By how much they compute for each weight that workers exchange: much, and little.
SPECS = ((Attention(width=256, layers=2), 16384), (Lstm(width=200, neighbours=0), 8192))
TEN_MINUTES = 600.0


def main() -> None:
    """Print the three ratios, each of medians of pairs taken in turn."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as name:
        folder = Path(name)
        for spec, batch_cost in SPECS:
            places = [folder / f"{spec.name}-{number}" for number in range(2)]
            asked = [job(place, spec, batch_cost) for place in places]
            workers(asked)
        epochs(asked[0])
        whole_runs(folder)


def job(folder: Path, spec: Any, batch_cost: int) -> TrainJob:
    made = memory.job(folder, ANSWERS)
    budget = Budget(epochs=EPOCHS, batch_cost=batch_cost)
    return replace(made, name=folder.name, spec=as_dict(spec), budget=budget)


def workers(asked: Sequence[TrainJob]) -> None:
    """Answers per second of two workers, by those of two processes that each learn alone."""
    name, batch_cost = asked[0].spec["name"], asked[0].budget.batch_cost
    half = [replace(one, budget=replace(one.budget, batch_cost=batch_cost // 2)) for one in asked]
    ratios = []
    for pair in range(PAIRS):
        together = through_ray(renamed(asked[0], f"together-{pair}"), workers=2, cpus=2)
        alone = alone_at_once([renamed(one, f"{one.name}-alone-{pair}") for one in half])
        ratios.append(rate(together) / sum(map(rate, alone)))
        print(
            f"{name}: two workers {rate(together):,.0f} answers/s, two processes "
            f"{' + '.join(f'{rate(one):,.0f}' for one in alone)}: {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"{name}: two workers / two processes of their own: {statistics.median(ratios):.2f}")


def epochs(asked: TrainJob) -> None:
    """Seconds from epoch to epoch with one worker of one thread, by those of the bare loop."""
    ratios = []
    for pair in range(PAIRS):
        carried = through_ray(renamed(asked, f"carried-{pair}"), workers=1, cpus=1)
        (bare,) = alone_at_once([renamed(asked, f"bare-{pair}")])
        ratios.append(cadence(carried) / cadence(bare))
        print(
            f"an epoch {cadence(carried):.2f} s under Ray Train, {cadence(bare):.2f} s bare: "
            f"{ratios[-1]:.3f}",
            flush=True,
        )
    print(f"an epoch under Ray Train / of the bare loop: {statistics.median(ratios):.3f}")


def whole_runs(folder: Path) -> None:
    """A second run on a home that is warm, with servers of its own and on a platform that is up."""
    simulate(SCHOOL, folder / "logs")
    for up in (False, True):
        home = folder / f"warm-{up}"
        home.mkdir()
        with Installation.lent(home, folder / "logs", up=up) as here:
            whole_run(here, "on a platform that is up" if up else "with servers of its own")


def whole_run(here: Installation, how: str) -> None:
    """What a run took beside its stages' work, printed."""
    sets = ["gate.beat_baseline=false", "gate.margin=1", "gate.slice_margin=1"]
    words = ["knowledge", "--data", str(here.data), "--set", "gate.max_calibration_error=1"]
    words += [word for setting in sets for word in ("--set", setting)]
    here.run(*words)
    begin = time.perf_counter()
    report = here.run(*words, "--seed", "1")
    spent = time.perf_counter() - begin
    work = stage_work(here, report)
    print(
        f"a warm run {how}: {spent:.1f} s, of which {work:.1f} s its stages' work; the rest is "
        f"{(spent - work) / TEN_MINUTES:.3f} of ten minutes"
    )


def stage_work(here: Installation, report: dict[str, Any]) -> float:
    """Seconds of all stages, of which training only worked while there was an epoch."""
    (path,) = (
        found
        for found in here.home.glob("store/stages/train/*/events.jsonl")
        if report["lineage"] in found.with_name("job.json").read_text()
    )
    learnt = sum(e.metrics["seconds"] for e in events.read(str(path)) if e.kind == "epoch")
    others = {stage: s for stage, s in report["timings_s"].items() if stage != "train"}
    return float(learnt + sum(others.values()))


def through_ray(asked: TrainJob, *, workers: int, cpus: int) -> list[events.Event]:
    """Train as a job does, on a Ray of so many CPUs, set as `lyceum` sets it; its epochs."""
    of = replace(asked, workers=workers, resources=Resources(worker_cpus=1))
    home = Path(of.output, "home")
    prepare(home)
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as temp:
        code = (
            f"import ray; from ray_jobs import train; from ray_jobs.training import driver; "
            f"from ray_jobs.training.job import TrainJob; "
            f"ray.init(address='local', _node_ip_address={LOOPBACK!r}, num_cpus={cpus}, "
            f"log_to_driver=False, _temp_dir={temp!r}); "
            f"driver.train(TrainJob.load({of.save()!r})); ray.shutdown()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True,
            env={**os.environ, **environment(Settings(home=home))},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return told(of)


def alone_at_once(asked: Iterable[TrainJob]) -> list[list[events.Event]]:
    """Train each in a process of one thread, all at the same time; the epochs of each."""
    started = []
    for one in asked:
        command = [sys.executable, "-m", "tests.bench.efficiency", one.save()]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        started.append((one, subprocess.Popen(command, env=one_thread)))
    assert [process.wait() for _, process in started] == [0] * len(started)
    return [told(one) for one, _ in started]


def bare(uri: str) -> None:
    """The loop alone, as a worker sets its process up, without Ray, and nothing reported kept."""
    torch.set_num_threads(1)
    keep_freed()
    asked = TrainJob.load(uri)
    splits = Splits.of(asked)
    state = State.of(splits.spec.build(splits.vocabulary), asked.budget, Team())

    def say(state: State, figures: dict[str, float]) -> None:
        events.append(asked.events, events.Event("epoch", 1, state.epoch, figures))

    run(state, splits.lesson(), Team(), say)


def told(asked: TrainJob) -> list[events.Event]:
    return [event for event in events.read(asked.events) if event.kind == "epoch"]


def rate(epochs: Sequence[events.Event]) -> float:
    """Answers per second of all epochs but the first."""
    return statistics.median(event.metrics["rows_per_s"] for event in epochs[1:])


def cadence(epochs: Sequence[events.Event]) -> float:
    """Seconds from one epoch's end to the next one's."""
    times = [event.time for event in epochs]
    return statistics.median(b - a for a, b in pairwise(times))


def renamed(asked: TrainJob, name: str) -> TrainJob:
    """The same training, with its own place for what it writes."""
    output = f"{asked.output}-{name}"
    made = replace(asked, name=name, output=output)
    Path(output).mkdir()
    Path(output, "vocabulary.json").write_bytes(Path(asked.vocabulary).read_bytes())
    return made


if __name__ == "__main__":
    if len(sys.argv) == 2:
        bare(sys.argv[1])
    else:
        main()
