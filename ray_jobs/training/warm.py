"""A warm start: a network that begins near where another ended, with what is new added behind.

Vocabularies are append-only, so that what two of them know has the same rows in every tensor,
and a network for the longer one holds that for the shorter whole. Weights are shrunk towards
those drawn anew ("shrink and perturb", Ash and Adams 2020): from exactly where it ended a
network learns its old rows by heart before it learns from new ones.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ray_jobs import artifact
from ray_jobs.artifact import Artifact
from ray_jobs.errors import TrainingError
from ray_jobs.recipe import as_dict


@runtime_checkable
class Successor(Protocol):
    """A network that has buffers of its own to see to, and rows of what is new."""

    def succeed(self, before: nn.Module) -> None:
        """Take over what is no parameter, and begin what is new by what the predecessor learnt."""


def read(uri: str, digest: str) -> Artifact:
    """The artifact to begin from; raises TrainingError where another lies there."""
    found = artifact.fetched(uri)
    if found.digest != digest:
        raise TrainingError(
            f"{uri} has digest {found.digest[:12]}, but training was to begin from "
            f"{digest[:12]}; run again, or with --set start.champion=false"
        )
    return found


def misfit(before: Artifact, spec: Any) -> str:
    """Why a network of a spec cannot begin from a model; empty where it can."""
    if before.family.extended is None:
        return f"a model of the family {before.family.name} cannot take in new data"
    if hasattr(spec, "fit"):
        return f"{spec.name} is fitted at one go and has no start"
    if type(spec) is not type(before.spec):
        return f"it is {before.spec.name}, and this is {spec.name}"
    own = spec.build(before.vocabulary).state_dict()
    theirs = before.module.state_dict()
    if _shapes(own) != _shapes(theirs):
        asked, had = as_dict(spec), as_dict(before.spec)
        other = [f"{key} {had[key]}" for key, value in asked.items() if had.get(key) != value]
        return f"its network has another shape: {', '.join(other)}"
    return ""


@torch.no_grad()
def begin(network: nn.Module, before: nn.Module, kept: float) -> None:
    """Move a network a share of the way, `kept`, from where it is to where its predecessor was.

    Rows that a longer vocabulary added lie behind those of the shorter one, and stay.
    """
    own = dict(network.named_parameters())
    for name, weights in before.named_parameters():
        _shared(own[name], weights).lerp_(weights, kept)
    if isinstance(network, Successor):
        network.succeed(before)
        return
    buffers = dict(network.named_buffers())
    for name, values in before.named_buffers():
        _shared(buffers[name], values).copy_(values)


def _shared(own: Tensor, before: Tensor) -> Tensor:
    """The part of a tensor that its predecessor had."""
    return own[tuple(slice(0, size) for size in before.shape)]


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}
