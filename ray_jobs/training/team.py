"""The workers of one training run, seen from one of them: rank, device, and how they add up.

One all-reduce per step carries gradients, loss and count together. Unlike
DistributedDataParallel its layout never changes, so resuming is exact on any
number of workers, and unused parameters and empty shares need no special case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ray_jobs.errors import StoreError
from ray_jobs.recipe import Budget

CPU = torch.device("cpu")
Said = TypeVar("Said")


def multiplies_halves() -> bool:
    """Whether this CPU multiplies bfloat16 by itself: with AMX, or with AVX-512's own products."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


@dataclass(frozen=True)
class Team:
    """This worker's place; with a world of one nothing is exchanged."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    bf16: bool = field(default_factory=multiplies_halves)  # of the CPUs of all workers

    @property
    def leads(self) -> bool:
        """Whether this worker writes for all of them."""
        return self.rank == 0

    def halves(self, budget: Budget) -> bool:
        """Whether a step computes in half precision."""
        if self.device.type == "cuda":
            return budget.precision != "float32"
        return budget.precision == "bfloat16" or (budget.precision == "native" and self.bf16)

    def autocast(self, budget: Budget) -> AbstractContextManager[Any]:
        """In which precision a step computes; weights and sums stay as they are."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.halves(budget))

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace each float tensor by its sum over the workers, in place, at one go."""
        if self.world == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Give every worker the first one's values, in place."""
        if self.world == 1:
            return
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), src=0)

    def gathered(self, said: Said) -> list[Said]:
        """What each worker says, in the order of their ranks."""
        if self.world == 1:
            return [said]
        heard = [said] * self.world
        distributed.all_gather_object(heard, said)
        return heard

    def check_equal(self, number: int, what: str) -> None:
        """Raise StoreError when the workers do not see the same of what they share."""
        first = torch.tensor([float(number)], device=self.device)
        self.agree([first])
        if int(first) != number:
            raise StoreError(
                f"worker {self.rank} sees another state of {what} than worker 0; "
                "the store must be one place, shared by all nodes"
            )


def gradients(module: nn.Module) -> list[Tensor]:
    """Gradients of all that is trained, zeros where this worker's share gave none."""
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in module.parameters() if p.grad is not None]


def on_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on a device: a tensor, or a record, dict or list of them."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch) if f.init}
        return dataclasses.replace(batch, **on_device(fields, device))
    if isinstance(batch, dict):
        return {name: on_device(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(on_device(value, device) for value in batch)
    return batch
