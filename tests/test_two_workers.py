"""Two workers learn what one learns: every network there is, on real batches.

Run as a script this file is one worker of two.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from ray_jobs.families import families, family
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import World
from ray_jobs.recipe import Budget
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.order import epoch_batches
from ray_jobs.training.team import Team

NETWORKS = [
    (kind, name)
    for kind in families()
    for name, spec in family(kind).specs.items()
    if not hasattr(spec, "fit")
]


def lesson(folder: Path, kind: str) -> Lesson:
    """Twenty steps and more of a small simulated school."""
    of = family(kind)
    table = simulate(World(learners=60, items=40, skills=4, answers=20), folder).table()
    vocabulary = of.vocabulary(table)
    examples = of.examples(table, vocabulary)
    budget = Budget(epochs=2, batch_cost=128, learning_rate=1e-3)
    return Lesson(
        family=of, vocabulary=vocabulary, train=examples[6:], validation=examples[:6],
        budget=budget, seed=0,
    )  # fmt: skip


def learnt(folder: Path, kind: str, name: str, team: Team) -> dict[str, torch.Tensor]:
    """The parameters after training with everything random left out."""
    torch.set_num_threads(1)
    of = lesson(folder, kind)
    torch.manual_seed(0)
    spec: Any = replace(family(kind).specs[name](), width=16, dropout=0.0, blank=0.0, neighbours=0)
    state = State.of(spec.build(of.vocabulary), of.budget, team)
    return run(state, of, team, lambda *_: None).module.state_dict()


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_two_workers_learn_what_one_learns(kind: str, name: str, tmp_path: Path) -> None:
    of = lesson(tmp_path / "one", kind)
    costs = np.array([of.family.cost(example) for example in of.train])
    steps = [len(epoch_batches(costs, batch_cost=128, seed=0, epoch=e)) for e in range(2)]
    assert sum(steps) >= 20
    together = two_workers(tmp_path, kind, name)
    alone = learnt(tmp_path / "one", kind, name, Team())
    assert together.keys() == alone.keys()
    finite = [k for k, v in alone.items() if v.isfinite().all() and v.numel()]
    gap = max(float((together[k] - alone[k]).abs().max()) for k in finite)
    assert gap < 1e-5


def two_workers(folder: Path, kind: str, name: str) -> dict[str, torch.Tensor]:
    """Train in two processes joined by gloo; the parameters of the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), kind, name],
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [worker.communicate(timeout=180)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(said)
    found: dict[str, torch.Tensor] = torch.load(folder / "together.pt", weights_only=True)
    return found


def work(folder: Path, kind: str, name: str) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    state = learnt(folder / f"two-{rank}", kind, name, Team(rank, 2))
    if rank == 0:
        torch.save(state, folder / "together.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    work(Path(sys.argv[1]), *sys.argv[2:])
