"""A training state on the store: one file, replaced whole after each epoch, loaded without pickle.

Ray's own checkpoint list is not written atomically: a run killed in that
moment could never be resumed. This file is there whole, or as it was before.
"""

from __future__ import annotations

import hashlib
import io
from pickle import UnpicklingError

import torch

from ray_jobs import store
from ray_jobs.errors import StoreError
from ray_jobs.training.loop import State

FILE = "state.pt"
SEAL = 32  # bytes of a digest before the state: a flipped bit would be another state, untold
NUMBERS = ("epoch", "best_epoch", "best_loss", "rows", "seconds")


def save(folder: str, state: State) -> None:
    """Put a state into a folder of the store, in place of the one before."""
    values = {name: getattr(state, name) for name in NUMBERS}
    tensors = {
        "module": state.module.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": state.best,
    }
    buffer = io.BytesIO()
    torch.save({**values, **tensors}, buffer)
    data = buffer.getvalue()
    store.write_bytes(store.join(folder, FILE), hashlib.sha256(data).digest() + data)


def restore(folder: str, state: State, device: torch.device) -> State:
    """Bring a fresh state, bit by bit, to where the saved one stood; as it is where none was."""
    uri = store.join(folder, FILE)
    if not store.exists(uri):
        return state
    data = store.read_bytes(uri)
    seal, data = data[:SEAL], data[SEAL:]
    if hashlib.sha256(data).digest() != seal:
        raise StoreError(f"{uri} is damaged; remove it to train from the start")
    try:
        values = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        state.module.load_state_dict(values["module"])
        state.optimizer.load_state_dict(values["optimizer"])
    except (RuntimeError, ValueError, KeyError, UnpicklingError) as error:
        raise StoreError(
            f"{uri} is of another network; remove it to train from the start"
        ) from error
    state.best = values["best"]
    for name in NUMBERS:
        setattr(state, name, values[name])
    return state
