"""What runs inside a Ray Train worker: one rank of the loop, its checkpoints and events.

Importable wherever torch is; Ray only carries it to the nodes. The first rank
writes for all: events while it learns, the artifact when it is done.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from torch import nn

from ray_jobs import artifact, remote, store
from ray_jobs.allocator import keep_freed
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import TrainingError
from ray_jobs.training import checkpoint, events
from ray_jobs.training.events import Event, finished
from ray_jobs.training.job import TrainJob
from ray_jobs.training.loop import Lesson, State, run, validate
from ray_jobs.training.machine import Machine
from ray_jobs.training.sharded import Objective, divides, gathered
from ray_jobs.training.splits import Splits
from ray_jobs.training.team import Team

logger = logging.getLogger(__name__)


def train_network(config: dict[str, str]) -> dict[str, str]:
    """One worker's whole life, of a job at `config["job"]`; what it returns, the driver sees.

    A TrainingError is raised by all workers alike and would be again: it is
    returned, so that Ray does not retry what cannot succeed.
    """
    with remote.patience():
        worker = _Worker(TrainJob.load(config["job"]))
        try:
            answer = {"digest": worker.train()}
        except TrainingError as error:
            answer = {"error": str(error)}
        # A worker that is killed leaves them, for the one that takes its place.
        worker.splits.forget()
        return answer


def fit_closed_form(uri: str) -> str:
    """Fit a spec that needs no loop, and write its artifact; returns the digest."""
    with remote.patience():
        return _fitted(TrainJob.load(uri))


def _fitted(job: TrainJob) -> str:
    train, validation = read_parquet(job.train), read_parquet(job.validation)
    splits = Splits.seen(job, [train])
    attempt = events.next_attempt(job.events)
    started = Event("started", attempt, detail={"workers": 1, "resumed_from": 0})
    events.append(job.events, started)
    torch.manual_seed(job.seed)
    module = splits.spec.fit(train, validation, splits.vocabulary).eval()
    # The clock of the events: from the start of this attempt.
    done = Event("epoch", attempt, 1)
    seconds = done.time - started.time
    metrics = {
        "validation_loss": validate(
            Objective(module), splits.all_in_memory(train, validation), Team()
        ),
        "rows_per_s": train.height / seconds,
        "seconds": seconds,
    }
    events.append(job.events, Event("epoch", attempt, 1, metrics, time=done.time))
    about = {"epochs": 1, "best_epoch": 1, "workers": 1, "rows_per_s": metrics["rows_per_s"]}
    return write_artifact(job, splits, module, about)


def write_artifact(job: TrainJob, splits: Splits, module: nn.Module, about: dict[str, Any]) -> str:
    """Put a finished model on the store and say so; returns its digest."""
    with tempfile.TemporaryDirectory(prefix="artifact-") as name:
        folder = Path(name)
        digest = artifact.write(
            folder,
            kind=job.family,
            spec=splits.spec,
            vocabulary=splits.vocabulary,
            module=module,
            about={**job.about, **about},
        )
        store.put_folder(folder, job.artifact)
    events.append(job.events, finished(job.events, digest, about))
    return digest


class _Worker:
    """One rank, between Ray and the loop."""

    def __init__(self, job: TrainJob) -> None:
        context = ray.train.get_context()
        rank, world = context.get_world_rank(), context.get_world_size()
        team = Team(rank, world, ray.train.torch.get_device())
        self.team = dataclasses.replace(team, bf16=all(team.gathered(team.bf16)))
        here = ray.get_runtime_context().get_node_id()
        self.nodes = self.team.gathered(here)  # of each worker
        torch.set_num_threads(max(1, node_cpus() // self.nodes.count(here)))
        keep_freed()
        self.job = job
        self.splits = Splits.of(job)
        self.attempt = events.next_attempt(job.events)
        self.uploads = checkpoint.Uploads(job.checkpoints)
        # Ray numbers nodes by their addresses, and two may lie behind one.
        number = list(dict.fromkeys(self.nodes)).index(here)
        self.machine = Machine(f"node-{number}", self.team.device)
        self.first_here = self.nodes.index(here) == rank

    def train(self) -> str:
        """From the last checkpoint, or from nothing, to the artifact; its digest."""
        lesson = self.splits.lesson()
        # The first rank's network is given to all, so it alone prepares.
        network = self.splits.network(prepared=self.team.leads)
        fresh = State.of(network, self.job.budget, self.team)
        state = self._restored(fresh)
        self.team.check_equal(state.epoch, f"the checkpoint in {self.job.checkpoints}")
        self._say_started(lesson, state)
        with self.machine.watched(), self.uploads:
            run(state, lesson, self.team, self._report)
            self.uploads.finish()
        best = self._best(state)
        return self._write(state, best) if self.team.leads else ""

    def _say_started(self, lesson: Lesson, state: State) -> None:
        if not self.team.leads:
            return
        detail = {
            "workers": self.team.world,
            "nodes": self.nodes,
            "device": self.team.device.type,
            "threads": torch.get_num_threads(),
            "examples": len(lesson.train),
            "parameters": sum(p.numel() for p in state.module.parameters()),
            "epochs": lesson.budget.epochs,
            "resumed_from": state.epoch,
        }
        events.append(self.job.events, Event("started", self.attempt, state.epoch, detail=detail))

    def _report(self, state: State, figures: dict[str, float]) -> None:
        """Say it, then save it: an epoch lost between the two is said again, not forgotten."""
        nodes = self.team.gathered(self.machine.figures() if self.first_here else {})
        if self.team.leads:
            figures |= {name: value for node in nodes for name, value in node.items()}
            figures["workers"] = float(self.team.world)
            events.append(self.job.events, Event("epoch", self.attempt, state.epoch, figures))
        self._save(state)

    def _restored(self, fresh: State) -> State:
        if self.job.budget.sharded:
            from ray_jobs.training import parts  # half a second that others need not wait

            return parts.restore(self.job.checkpoints, fresh, self.team)
        return checkpoint.restore(self.job.checkpoints, fresh, self.team.device)

    def _save(self, state: State) -> None:
        if self.job.budget.sharded:
            from ray_jobs.training import parts

            parts.save(self.job.checkpoints, state, self.team)
        elif self.team.leads:
            self.uploads.save(state)

    def _best(self, state: State) -> nn.Module:
        """The network of the best epoch; of one that was divided, whole on the first worker."""
        if not divides(self.job.budget, self.team):
            state.module.load_state_dict(state.best)
            return state.module
        weights = gathered(state.best, self.team)
        if not self.team.leads:
            return state.module
        module: nn.Module = self.splits.spec.build(self.splits.vocabulary)
        module.load_state_dict(weights)
        return module

    def _write(self, state: State, best: nn.Module) -> str:
        about = {
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "workers": self.team.world,
            "rows_per_s": state.rows_per_s,
        }
        return write_artifact(self.job, self.splits, best, about)


def node_cpus() -> int:
    """CPUs that Ray may use on this node."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = next(node["Resources"] for node in nodes if node["NodeID"] == here)
    return int(resources.get("CPU", 1))
