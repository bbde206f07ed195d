"""A worker's share is whole: each tensor of a batch moves, each weight has a gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ray_jobs.training.team import gradients, on_device

META = torch.device("meta")  # holds shapes alone, on every machine


@dataclass(frozen=True)
class Part:
    """A record as families make them: tensors, what is no tensor, what is worked out."""

    values: Tensor
    name: str
    more: dict[str, list[Tensor]]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", len(self.values))


def test_a_batch_moves_whole_whatever_it_is_made_of() -> None:
    one = torch.ones(3)
    batch: dict[str, Any] = {
        "part": Part(one, "x", {"a": [one, one]}),
        "pair": (one, 7),
        "no": None,
    }
    moved = on_device(batch, META)
    part = moved["part"]
    tensors = [part.values, *part.more["a"], moved["pair"][0]]
    assert [tensor.device for tensor in tensors] == [META] * 4
    assert (part.name, part.size, type(part)) == ("x", 3, Part)
    assert (moved["pair"][1], moved["no"], type(moved["pair"])) == (7, None, tuple)
    assert one.device != META, "the batch that was given stays where it is"


def test_what_a_share_left_out_has_a_gradient_of_nothing_and_what_is_fixed_has_none() -> None:
    module = nn.ModuleDict(
        {name: nn.Linear(2, 2, bias=False) for name in ("used", "spare", "fixed")}
    )
    module["fixed"].weight.requires_grad_(False)
    torch.autograd.backward(module["used"](torch.ones(1, 2)).sum())
    used, spare = gradients(module)
    assert torch.equal(used, torch.ones(2, 2))
    assert torch.equal(spare, torch.zeros(2, 2))
    assert module["fixed"].weight.grad is None
    used += 1
    theirs = module["used"].weight.grad
    assert isinstance(theirs, torch.Tensor)
    assert torch.equal(theirs, torch.full((2, 2), 2.0)), "they are the module's"
