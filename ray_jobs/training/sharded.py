"""A network divided among the workers (FSDP2): a device holds its share of what training needs.

The whole of a block is on a device only while it computes. Every worker must
therefore compute as often as every other one: who has nothing to learn from
computes for company, and what it finds counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_jobs.errors import TrainingError
from ray_jobs.recipe import Budget
from ray_jobs.training.order import filled, share
from ray_jobs.training.team import Team

Asked = TypeVar("Asked")

LEAST = 1 << 16  # weights of a single layer in a list that are worth a gathering of their own
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
REMEDY = "let the network name its blocks with shard_units() -> list[nn.Module]"


class Objective(nn.Module):
    """A network and what is minimised, as one: a batch → its summed loss.

    Whatever record a network answers with, what leaves here is a tensor: FSDP
    finds its way back through tensors alone.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Any, loss: Callable[[Any, Any], Tensor]) -> Tensor:
        with _told():
            summed = loss(self.network(batch), batch)
        if _is_divided(summed):
            raise TrainingError(f"a weight was used outside the block that holds it; {REMEDY}")
        return summed


def divides(budget: Budget, team: Team) -> bool:
    """Whether a network is divided: with one worker there is nobody to share it with."""
    return budget.sharded and team.world > 1


def divide(objective: Objective, team: Team, budget: Budget) -> None:
    """Divide a network, equal to the first worker's from then on, among all workers.

    Its whole stands in the memory of every host until then, and on a device one
    block of it at a time. Raises TrainingError for one that cannot be divided.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise TrainingError(f"torch {torch.__version__} cannot do budget.sharded; install 2.13")
    blocks = units(objective.network)
    _must_be_divisible(objective.network, blocks)
    for tensor in objective.network.state_dict().values():
        moved = tensor.detach().to(team.device)
        team.agree([moved])
        tensor.copy_(moved)
    mesh = init_device_mesh(team.device.type, (team.world,))
    half = torch.bfloat16 if team.halves(budget) else None
    # Weights are gathered in half precision where they are used so: autocast's
    # own copies of them would all stay on the device until they are walked back.
    policy = MixedPrecisionPolicy(half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in (*blocks, objective):
        divided = fully_shard(block, mesh=mesh, mp_policy=policy)
        # The loop divides, by rows and not by workers; and gloo knows sums alone.
        divided.set_gradient_divide_factor(1.0)
        divided.set_force_sum_reduction_for_comms(True)
        divided.set_reduce_scatter_unused_params(True)
        if block is not objective:
            block.register_forward_hook(_must_lead_back)


def rest(objective: Objective) -> None:
    """Give back what the last forward left whole on the device."""
    reshard = getattr(objective, "reshard", None)
    if reshard is not None:
        reshard()


def units(network: nn.Module) -> list[nn.Module]:
    """What is gathered one at a time, the inner before the outer.

    A module may offer them as `shard_units() -> list[nn.Module]`; else they are
    the blocks and the large layers that stand in its lists and sequences.
    """
    own = getattr(network, "shard_units", None)
    chosen = set(map(id, _repeated(network) if own is None else own()))
    return [m for m in reversed(list(network.modules())) if id(m) in chosen and m is not network]


def in_step(mine: list[Asked], turns: int, company: Asked) -> list[tuple[Asked, bool]]:
    """As many pieces of work as every worker does, and of each whether it counts."""
    return [(one, True) for one in mine] + [(company, False)] * (turns - len(mine))


def most_parts(
    indices: NDArray[np.int64], costs: NDArray[np.int64], *, at_once: int, world: int
) -> int:
    """In how many parts the worker with most of them computes its share of a global batch."""
    return max(len(filled(share(indices, rank, world), costs, at_once)) for rank in range(world))


def here(tensor: Tensor) -> Tensor:
    """A worker's own part of a tensor, in place; a whole one is itself."""
    divided: Any = tensor
    local: Tensor = divided.to_local() if _is_divided(tensor) else tensor
    return local


def whole(tensor: Tensor) -> Tensor:
    """A tensor from the parts of all workers, who must all ask; a whole one is itself."""
    divided: Any = tensor
    found: Tensor = divided.full_tensor() if _is_divided(tensor) else tensor
    return found


def gathered(weights: dict[str, Tensor], team: Team) -> dict[str, Tensor]:
    """The weights whole in the memory of the first worker's host; nothing elsewhere.

    All workers must ask; a device holds one whole tensor at a time.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        together = whole(tensor)
        if team.leads:
            found[name] = together.detach().cpu()
    return found


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Afterwards running statistics, where a network has them, are what they were."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)


def _repeated(network: nn.Module) -> list[nn.Module]:
    lists = (m for m in network.modules() if isinstance(m, nn.ModuleList | nn.Sequential))
    members = [m for one in lists for m in one if not isinstance(m, CONTAINERS) and _weights(m)]
    blocks = [m for m in members if any(True for _ in m.children())]
    within = {id(m) for block in blocks for m in block.modules()}
    return blocks + [m for m in members if id(m) not in within and _weights(m) >= LEAST]


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _is_divided(tensor: Tensor) -> bool:
    # By its method: importing DTensor takes a second that most runs do not need.
    return hasattr(tensor, "full_tensor")


def _must_be_divisible(network: nn.Module, blocks: list[nn.Module]) -> None:
    """Raise TrainingError for weights that FSDP refuses, or would quietly hold twice."""
    chosen, owner = set(map(id, blocks)), dict[nn.Parameter, tuple[str, int]]()
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if parameter.ndim == 0:
            raise TrainingError(f"{name} is a single number; budget.sharded needs it as (1,)")
        path = name.split(".")[:-1]
        parents = (network.get_submodule(".".join(path[:n])) for n in range(len(path), 0, -1))
        block = next((id(m) for m in parents if id(m) in chosen), id(network))
        known, first = owner.setdefault(parameter, (name, block))
        if block != first:
            raise TrainingError(f"{known} and {name} are one weight of two blocks; {REMEDY}")


def _must_lead_back(block: nn.Module, _: Any, output: Any) -> None:
    """A block's gradients are found through the tensors it returns, and only through them."""
    from torch.utils._pytree import tree_leaves

    if not torch.is_grad_enabled():
        return
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    if not any(leaf.requires_grad for leaf in leaves):
        name = type(block).__name__.removeprefix("FSDP")  # which it puts before
        raise TrainingError(
            f"{name} returns {type(output).__name__}, through which FSDP finds no way back; "
            f"return tensors, or {REMEDY} without it"
        )


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "mixed torch.Tensor and DTensor" not in str(error):
            raise
        raise TrainingError(
            f"a weight was used outside the block that holds it; {REMEDY}"
        ) from error
