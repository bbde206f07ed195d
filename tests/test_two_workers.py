"""Two workers learn what one learns: every network there is, on real batches.

Run as a script this file is one worker of two.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from ray_jobs.families import families, family
from ray_jobs.recipe import Budget
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.order import epoch_batches
from ray_jobs.training.team import Team
from tests.family_parts import sampled
from tests.gloo_parts import finish, leave

NETWORKS = [
    (kind, name)
    for kind in families()
    for name, spec in family(kind).specs.items()
    if not hasattr(spec, "fit")
]


EXACT = {"width": 16, "dropout": 0.0, "blank": 0.0, "neighbours": 0, "hint": 0.0}  # nothing random


def lesson(kind: str) -> Lesson:
    """Twenty steps and more of a family's own sample."""
    of, table = family(kind), sampled(kind).train
    vocabulary = of.vocabulary([table])
    examples = list(of.examples(table, vocabulary))
    batch_cost = max(sum(map(of.cost, examples)) // 16, *map(of.cost, examples))
    budget = Budget(epochs=2, batch_cost=batch_cost, learning_rate=1e-3)
    return Lesson(
        family=of, vocabulary=vocabulary, train=examples[6:], validation=examples[:6],
        budget=budget, seed=0,
    )  # fmt: skip


def learnt(kind: str, name: str, team: Team) -> dict[str, torch.Tensor]:
    """The parameters after training with everything random left out."""
    torch.set_num_threads(1)
    of, spec = lesson(kind), family(kind).specs[name]()
    torch.manual_seed(0)
    known = {f.name for f in fields(spec)}
    exact: Any = replace(spec, **{key: v for key, v in EXACT.items() if key in known})
    state = State.of(exact.build(of.vocabulary), of.budget, team)
    return run(state, of, team, lambda *_: None).module.state_dict()


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_two_workers_learn_what_one_learns(kind: str, name: str, tmp_path: Path) -> None:
    of = lesson(kind)
    costs = np.array([of.family.cost(example) for example in of.train])
    size = of.budget.batch_cost
    steps = [len(epoch_batches(costs, batch_cost=size, seed=0, epoch=e)) for e in range(2)]
    assert sum(steps) >= 20
    together = two_workers(tmp_path, kind, name)
    alone = learnt(kind, name, Team())
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
            [sys.executable, "-m", "tests.test_two_workers", str(folder), kind, name],
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parent.parent,
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
    state = learnt(kind, name, Team(rank, 2))
    if rank == 0:
        torch.save(state, folder / "together.pt")
    leave()
    finish()


if __name__ == "__main__":
    work(Path(sys.argv[1]), *sys.argv[2:])
