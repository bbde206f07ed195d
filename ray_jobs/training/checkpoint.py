"""Training states on the store: a file for each of the last epochs, loaded without pickle.

Ray's own checkpoint list is not written atomically: a run killed in that
moment could never be resumed. A file here is there whole, or it is damaged and
the one before it is taken.
"""

from __future__ import annotations

import hashlib
import io
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pickle import UnpicklingError
from typing import Any

import torch

from ray_jobs import store
from ray_jobs.errors import StoreError
from ray_jobs.training.loop import State

logger = logging.getLogger(__name__)

PREFIX, SUFFIX = "state-", ".pt"
KEPT = 2  # so that one is left when the newest is damaged
SEAL = 32  # bytes of a digest before the state: a flipped bit would be another state, untold
NUMBERS = ("epoch", "best_epoch", "best_loss", "rows", "seconds")


class Uploads:
    """Saves states in a folder of the store while training goes on, one at a time.

    The block that it is used in ends when the last is saved, also where it fails:
    what was learnt until a worker was lost is not learnt again.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def save(self, state: State) -> None:
        """Take a state as it is now, and begin to save it once the one before is saved.

        Raises what became of that one.
        """
        epoch, data = state.epoch, _packed(state)
        self.finish()
        self._last = self._pool.submit(_put, self._folder, epoch, data)

    def finish(self) -> None:
        """Wait for what was begun; raises StoreError where it could not be saved."""
        if self._last is not None:
            self._last.result()

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def save(folder: str, state: State) -> None:
    """Put a state into a folder of the store, and take away those before the last."""
    _put(folder, state.epoch, _packed(state))


def _packed(state: State) -> bytes:
    values = {name: getattr(state, name) for name in NUMBERS}
    tensors = {
        "module": state.module.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": state.best,
    }
    buffer = io.BytesIO()
    torch.save({**values, **tensors}, buffer)
    return buffer.getvalue()


def _put(folder: str, epoch: int, data: bytes) -> None:
    uri = store.join(folder, f"{PREFIX}{epoch:06d}{SUFFIX}")
    store.write_bytes(uri, hashlib.sha256(data).digest() + data)
    for old in saved(folder)[KEPT:]:
        store.remove(old)


def saved(folder: str) -> list[str]:
    """The states in a folder, the newest first."""
    names = (n for n in store.sizes(folder) if n.startswith(PREFIX) and n.endswith(SUFFIX))
    return [store.join(folder, name) for name in sorted(names, reverse=True)]


def restore(folder: str, state: State, device: torch.device) -> State:
    """Bring a fresh state, bit by bit, to where the newest whole one stood; as it is without one.

    Raises StoreError for one of another network.
    """
    for uri in saved(folder):
        data = store.read_bytes(uri)
        if hashlib.sha256(data[SEAL:]).digest() == data[:SEAL]:
            return _restored(uri, data[SEAL:], state, device)
        logger.warning("%s is damaged; going on from what was saved before it", uri)
    return state


def _restored(uri: str, data: bytes, state: State, device: torch.device) -> State:
    try:
        values: dict[str, Any] = torch.load(
            io.BytesIO(data), map_location=device, weights_only=True
        )
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
