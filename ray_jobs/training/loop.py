"""The training loop: every network of every family, on one worker or many.

Loss and gradient are sums over scored rows divided by the count of the whole
batch, wherever its rows were computed: two workers learn what one learns.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from ray_jobs.errors import TrainingError
from ray_jobs.families import Family
from ray_jobs.predictor import batches
from ray_jobs.recipe import Budget
from ray_jobs.training import sharded
from ray_jobs.training.clock import Clock
from ray_jobs.training.feed import ahead
from ray_jobs.training.optimiser import learning_rate, optimiser, set_rate
from ray_jobs.training.order import epoch_batches, filled, share, step_seed
from ray_jobs.training.sharded import Objective
from ray_jobs.training.shards import Shards
from ray_jobs.training.team import Team, gradients, on_device

logger = logging.getLogger(__name__)

CHECK_STEPS = 50  # steps between looks at the loss; each look waits for the device


@dataclass(frozen=True)
class Lesson:
    """What is to be learnt, and how long."""

    family: Family
    vocabulary: Any
    train: Sequence[Any]  # examples
    validation: Sequence[Any]
    budget: Budget
    seed: int

    def costs(self, examples: Sequence[Any]) -> NDArray[np.int64]:
        """(N,) positions that each example takes in a batch."""
        if isinstance(examples, Shards):
            return examples.costs
        return np.fromiter(map(self.family.cost, examples), np.int64, len(examples))


@dataclass
class State:
    """All that training changes, and so all that a checkpoint holds."""

    module: nn.Module
    optimizer: Optimizer
    best: dict[str, Tensor]  # weights of the best epoch
    objective: Objective  # the module with its loss
    epoch: int = 0  # epochs done
    best_epoch: int = 0
    best_loss: float = math.inf  # validation loss per scored row
    rows: float = 0.0  # scored rows learnt, repeats counted
    seconds: float = 0.0  # spent learning them

    @classmethod
    def of(cls, module: nn.Module, budget: Budget, team: Team) -> State:
        """A fresh start from a module, equal on every worker."""
        objective = Objective(module)
        if sharded.divides(budget, team):
            sharded.divide(objective, team, budget)
        else:
            module.to(team.device)
            team.agree(module.state_dict().values())
        return cls(module, optimiser(module, budget), _copied(module), objective)

    @property
    def rows_per_s(self) -> float:
        return self.rows / max(self.seconds, 1e-9)


def run(
    state: State,
    lesson: Lesson,
    team: Team,
    on_epoch: Callable[[State, dict[str, float]], None],
) -> State:
    """Train from where the state stands to the end of the budget.

    `on_epoch` gets the state and the figures of each epoch, on every worker.
    Raises TrainingError, on every worker alike, when a loss is not a number.
    """
    if lesson.budget.compiled:
        state.module.compile(dynamic=True)
    costs = lesson.costs(lesson.train)
    while state.epoch < lesson.budget.epochs:
        started = time.perf_counter()
        figures = _learn(state, lesson, team, costs)
        spent = time.perf_counter() - started
        state.seconds += spent
        figures["rows_per_s"] = figures.pop("rows") / spent
        figures["validation_loss"] = validate(state.objective, lesson, team)
        _keep_best(state, figures["validation_loss"])
        figures["seconds"] = time.perf_counter() - started
        figures["validation_seconds"] = figures["seconds"] - spent
        on_epoch(state, figures)
    return state


def validate(objective: Objective, lesson: Lesson, team: Team) -> float:
    """Loss per scored row of the validation split, each worker taking every n-th batch."""
    todo = batches(lesson.costs(lesson.validation), lesson.budget.batch_cost)
    mine, divided = share_of_batches(todo, team), sharded.divides(lesson.budget, team)
    turns = math.ceil(len(todo) / team.world) if divided else len(mine)
    total = torch.zeros(2, dtype=torch.float64, device=team.device)  # loss, scored rows
    objective.eval()

    def collated(asked: tuple[NDArray[np.int64], bool]) -> tuple[Any, bool]:
        return _collated(lesson, lesson.validation, asked[0], team), asked[1]

    # What is divided is gathered in the precision of a step, and can be used in no other.
    with torch.no_grad(), team.autocast(lesson.budget) if divided else nullcontext():
        for batch, counts in ahead(collated, sharded.in_step(mine, turns, np.arange(1))):
            summed = objective(batch, lesson.family.loss)
            if counts:
                total[0] += summed
                total[1] += lesson.family.weight(batch)
    sharded.rest(objective)
    team.add_up([total])
    loss, rows = total.tolist()
    if rows == 0:
        raise TrainingError("the validation split has no scored rows; raise split.validation")
    return float(loss / rows)


def share_of_batches(todo: list[NDArray[np.int64]], team: Team) -> list[NDArray[np.int64]]:
    """Whole batches for one worker; like lengths go round, so that all have as much to do."""
    return todo[team.rank :: team.world]


def _learn(state: State, lesson: Lesson, team: Team, costs: NDArray[np.int64]) -> dict[str, float]:
    """One epoch of steps; returns its loss per scored row, its rate, its rows and its seconds."""
    budget = lesson.budget
    todo = epoch_batches(costs, batch_cost=budget.batch_cost, seed=lesson.seed, epoch=state.epoch)
    totals = torch.zeros(len(todo), 2, device=team.device)  # of each step: loss, scored rows
    state.objective.train()
    clock = Clock(team.device)
    feed = ahead(lambda indices: _my_part(lesson, team, costs, indices), todo)
    for step, parts in enumerate(clock.waited_for(feed)):
        rate = learning_rate(budget, state.epoch + (step + 0.5) / len(todo))
        set_rate(state.optimizer, rate)
        torch.manual_seed(step_seed(lesson.seed, epoch=state.epoch, step=step, rank=team.rank))
        totals[step] = _step(state, lesson, team, parts, clock)
        if step % CHECK_STEPS == CHECK_STEPS - 1 or step == len(todo) - 1:
            _must_be_finite(totals[: step + 1], state.epoch)
    # Running statistics, where a network has them, were each worker's own.
    team.agree(state.module.buffers())
    state.epoch += 1
    loss, rows = totals.double().sum(0).tolist()
    if rows == 0:
        raise TrainingError("the train split has no scored rows; there is nothing to learn from")
    state.rows += rows
    figures = {"train_loss": loss / rows, "learning_rate": rate, "rows": rows}
    return figures | clock.figures()


def _my_part(
    lesson: Lesson, team: Team, costs: NDArray[np.int64], indices: NDArray[np.int64]
) -> list[tuple[Any, bool]]:
    """What this worker computes of a global batch, and whether it counts; may be nothing."""
    at_once = lesson.budget.micro_cost or sys.maxsize
    mine = filled(share(indices, team.rank, team.world), costs, at_once)
    turns = len(mine)
    if sharded.divides(lesson.budget, team):
        turns = sharded.most_parts(indices, costs, at_once=at_once, world=team.world)
    asked = sharded.in_step(mine, turns, indices[:1])
    return [(_collated(lesson, lesson.train, part, team), counts) for part, counts in asked]


def _step(
    state: State, lesson: Lesson, team: Team, parts: list[tuple[Any, bool]], clock: Clock
) -> Tensor:
    """One update from one global batch; returns its summed loss and its scored rows."""
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros(2, device=team.device)  # loss, scored rows
    for batch, counts in parts:
        if counts:
            total += _part(state, lesson, team, batch)
        else:
            with sharded.unchanged(state.module):
                _part(state, lesson, team, batch, worth=0.0)
    slopes = gradients(state.module)
    with clock.exchanging():
        # What is divided was added up on its way back through the network.
        team.add_up([*(slope for slope in slopes if sharded.here(slope) is slope), total])
    rows = total[1].clamp(min=1.0)
    norm = sharded.whole(nn.utils.get_total_norm(slopes, foreach=True)) / rows
    clipped = (lesson.budget.clip_norm / (norm + 1e-6)).clamp(max=1.0)
    # The mean over rows and the clipping at one go: each pass over all weights takes its time.
    torch._foreach_mul_([sharded.here(slope) for slope in slopes], clipped / rows)
    state.optimizer.step()
    return total


def _part(state: State, lesson: Lesson, team: Team, batch: Any, *, worth: float = 1.0) -> Tensor:
    """Add a batch's gradients to what is there; returns its summed loss and its scored rows."""
    with team.autocast(lesson.budget):
        loss = state.objective(batch, lesson.family.loss)
    torch.autograd.backward(loss * worth)
    return torch.stack([loss.detach(), lesson.family.weight(batch)])


def _collated(
    lesson: Lesson, examples: Sequence[Any], indices: NDArray[np.int64], team: Team
) -> Any:
    batch = lesson.family.collate([examples[i] for i in indices.tolist()], lesson.vocabulary)
    return on_device(batch, team.device)


def _keep_best(state: State, validation_loss: float) -> None:
    if not math.isfinite(validation_loss):
        raise TrainingError(
            f"validation loss is {validation_loss} after epoch {state.epoch}; "
            "lower budget.learning_rate"
        )
    if validation_loss < state.best_loss:
        state.best_loss, state.best_epoch = validation_loss, state.epoch
        state.best = _copied(state.module)


def _must_be_finite(totals: Tensor, epoch: int) -> None:
    bad = (~totals[:, 0].isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        raise TrainingError(
            f"loss is {float(totals[step, 0])} at epoch {epoch + 1}, step {step + 1}; "
            "lower budget.learning_rate, or look for impossible values in the data"
        )


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
