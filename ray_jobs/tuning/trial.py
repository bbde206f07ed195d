"""What runs inside a Ray Tune trial: the one loop, alone, with its own events and checkpoints.

Killed at any moment it goes on from its last checkpoint, as a training does; Tune
only hears of its epochs, and keeps nothing of it.
"""

from __future__ import annotations

import logging
from typing import Any

import polars as pl
import torch
from torch import nn

from ray_jobs import remote
from ray_jobs.allocator import keep_freed
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import TrainingError
from ray_jobs.privacy import salted
from ray_jobs.training import checkpoint, events
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.training.loop import State, run, validate
from ray_jobs.training.sharded import Objective
from ray_jobs.training.splits import Splits
from ray_jobs.training.team import Team
from ray_jobs.tuning.trials import told

logger = logging.getLogger(__name__)

INNER = 0.1  # share of the train split's groups that stands in for a closed form's validation


def learn(config: dict[str, Any]) -> None:
    """One trial's whole life: of the training job at `config["job"]`, to its last epoch.

    A TrainingError would be raised again: it is noted, so that Tune does not try
    anew what cannot succeed.
    """
    with remote.patience():
        job = TrainJob.load(config["job"])
        _learn(job, Splits.of(job, config["vocabulary"]))


def _learn(job: TrainJob, splits: Splits) -> None:
    torch.set_num_threads(max(1, int(job.resources.worker_cpus)))
    keep_freed()
    attempt = events.next_attempt(job.events)
    work = _fit if hasattr(splits.spec, "fit") else _train
    try:
        work(job, splits, attempt)
    except Exception as error:
        events.append(job.events, events.failed(job.events, error))
        if not isinstance(error, TrainingError):
            raise


def _train(job: TrainJob, splits: Splits, attempt: int) -> None:
    team = Team(device=torch.device("cuda" if job.resources.worker_gpus else "cpu"))
    lesson = splits.lesson()
    state = State.of(splits.network(), job.budget, team)
    state = checkpoint.restore(job.checkpoints, state, team.device)
    _say_started(job, attempt, state.epoch, device=team.device.type)
    if state.epoch:  # Tune may not have heard of it before the kill
        last = told(0, {}, events.read(job.events)).losses[state.epoch]
        _report(state.epoch, last, state.best_loss)

    def on_epoch(state: State, figures: dict[str, float]) -> None:
        events.append(job.events, Event("epoch", attempt, state.epoch, figures))
        checkpoint.save(job.checkpoints, state)
        _report(state.epoch, figures["validation_loss"], state.best_loss)

    run(state, lesson, team, on_epoch)


def _fit(job: TrainJob, splits: Splits, attempt: int) -> None:
    """Fit a closed form to the train split alone: some also learn from what they are validated on.

    They are given a part of the train split for that, so that the trials are judged
    on rows that none of them has seen.
    """
    started = _say_started(job, attempt, 0)
    train, validation = read_parquet(job.train), read_parquet(job.validation)
    inner = salted(train["bucket"], "search") < INNER
    torch.manual_seed(job.seed)
    module = splits.spec.fit(train.filter(~inner), train.filter(inner), splits.vocabulary).eval()
    loss = _judged(module, splits, train, validation)
    done = Event("epoch", attempt, 1)
    metrics = {"validation_loss": loss, "seconds": done.time - started.time}
    events.append(job.events, Event("epoch", attempt, 1, metrics, time=done.time))
    _report(1, loss, loss)


def _judged(
    module: nn.Module, splits: Splits, train: pl.DataFrame, validation: pl.DataFrame
) -> float:
    return validate(Objective(module), splits.all_in_memory(train, validation), Team())


def _say_started(job: TrainJob, attempt: int, epoch: int, **detail: Any) -> Event:
    detail |= {"threads": torch.get_num_threads(), "resumed_from": epoch}
    started = Event("started", attempt, epoch, detail=detail)
    events.append(job.events, started)
    return started


def _report(epoch: int, loss: float, best: float) -> None:
    """Tell Tune, and wait for its leave to go on: a trial that is stopped ends here."""
    from ray import tune

    tune.report({"epoch": epoch, "loss": loss, "best_loss": best})
