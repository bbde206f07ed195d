"""Training states in parts: each worker writes what it holds, and a seal makes of them one state.

The parts are of torch's distributed checkpoints, so another number of workers
loads them. A part is named by its digest, the seal names the parts, and comes
last: a state without its seal, or with a part that is not whole, is none.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save as save_together

from ray_jobs import store
from ray_jobs.errors import StoreError
from ray_jobs.training.checkpoint import KEPT, NUMBERS
from ray_jobs.training.loop import State
from ray_jobs.training.pieces import Reader, Writer
from ray_jobs.training.seal import SEAL, Seal, damaged
from ray_jobs.training.team import Team

logger = logging.getLogger(__name__)

SEALED = re.compile(rf"(state-\d{{6}})/{SEAL}")
FOLDER = re.compile(r"(state-\d{6})/.*")
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # by names, not by numbers


def save(folder: str, state: State, team: Team) -> None:
    """Put a state into a folder of the store, all workers together, and take away old ones."""
    tensors = _tensors(state)
    tensors["numbers"] = torch.tensor([getattr(state, n) for n in NUMBERS], dtype=torch.float64)
    writer = Writer(store.join(folder, f"state-{state.epoch:06d}"))
    with _told():
        save_together(
            tensors,
            storage_writer=writer,
            planner=DefaultSavePlanner(flatten_state_dict=False),
            no_dist=team.world == 1,
        )
    if team.leads:
        _forget_old(folder)


def saved(folder: str) -> list[str]:
    """The sealed states in a folder, the newest first."""
    found = (SEALED.fullmatch(name) for name in store.sizes(folder))
    return [store.join(folder, m[1]) for m in sorted(filter(None, found), key=str, reverse=True)]


def restore(folder: str, state: State, team: Team) -> State:
    """Bring a fresh state to where the newest whole one stood; as it is without one.

    Bit by bit, however many workers wrote it. Raises StoreError for one of another network.
    """
    here = "\n".join(saved(folder)) if team.leads else ""
    for uri in team.gathered(here)[0].split():
        seal = _seal(uri, team)
        if seal is not None:
            return _restored(uri, seal, state, team)
        if team.leads:
            logger.warning("%s is damaged; going on from what was saved before it", uri)
    return state


def _seal(uri: str, team: Team) -> Seal | None:
    """The seal of a state that all workers found whole, each looking at some of its parts."""
    text = team.gathered(Seal.text(uri) if team.leads else "")[0]
    if not text:
        return None
    seal = Seal.parsed(text)
    mine = sorted(seal.parts)[team.rank :: team.world]
    fault = any(damaged(uri, part) for part in mine)
    return None if any(team.gathered("damaged" if fault else "")) else seal


def _restored(uri: str, seal: Seal, state: State, team: Team) -> State:
    tensors = _tensors(state)
    tensors["numbers"] = torch.zeros(len(NUMBERS), dtype=torch.float64)
    if not seal.fits(tensors):
        raise StoreError(f"{uri} is of another network; remove it to train from the start")
    with _told():
        load(
            tensors,
            storage_reader=Reader(uri, seal),
            planner=DefaultLoadPlanner(flatten_state_dict=False),
            no_dist=team.world == 1,
        )
    # They are the state's own: what was read is where it belongs.
    for name, value in zip(NUMBERS, tensors["numbers"].tolist(), strict=True):
        setattr(state, name, type(getattr(state, name))(value))
    return state


def _tensors(state: State) -> dict[str, Tensor]:
    """The tensors that training changes, themselves, by names that no other world changes."""
    moments = get_optimizer_state_dict(state.module, state.optimizer, options=FLAT)
    parts = {"module": state.module.state_dict(), "best": state.best, "optimizer": moments}
    return {
        f"{part}.{name}": value
        for part, values in parts.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


@contextmanager
def _told() -> Iterator[None]:
    """What befell one worker is raised by all, as it was raised there."""
    try:
        with warnings.catch_warnings():
            # One worker needs nobody, and says so itself with `no_dist`.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            yield
    except CheckpointException as error:
        first = error.failures[min(error.failures)][0]
        raise first from error


def _forget_old(folder: str) -> None:
    """Leave the last states, and nothing that was never sealed."""
    kept = [uri.rsplit("/", 1)[1] for uri in saved(folder)[:KEPT]]
    found = (FOLDER.fullmatch(name) for name in store.sizes(folder))
    for name in {m[1] for m in found if m} - set(kept):
        store.remove(store.join(folder, name))
