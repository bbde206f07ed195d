"""A training state on disk: plain tensors and numbers, loaded without unpickling code.

It lives as long as its run. What outlives it is the artifact.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ray_jobs.training.loop import State

FILE = "state.pt"
NUMBERS = ("epoch", "best_epoch", "best_loss", "rows", "seconds")


def save(folder: Path, state: State) -> None:
    """Write a state into a folder."""
    values = {name: getattr(state, name) for name in NUMBERS}
    tensors = {
        "module": state.module.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": state.best,
    }
    torch.save({**values, **tensors}, folder / FILE)


def load(folder: Path, state: State, device: torch.device) -> State:
    """Bring a fresh state to where a saved one stood, bit by bit."""
    values = torch.load(folder / FILE, map_location=device, weights_only=True)
    state.module.load_state_dict(values["module"])
    state.optimizer.load_state_dict(values["optimizer"])
    state.best = values["best"]
    for name in NUMBERS:
        setattr(state, name, values[name])
    return state
