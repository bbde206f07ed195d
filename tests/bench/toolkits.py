"""Knowledge tracing as the toolkits write it: what our networks are measured against.

Histories cut at 200 answers and padded to 200, one-hot outputs, masks over all pairs of
steps; each network in a process of its own, as its users run it.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, one_hot

from ray_jobs.data.tables import read_parquet

STEPS = 200  # that a history is cut at and padded to
THREADS = 2
PATIENCE, MOST_EPOCHS = 5, 40


@dataclass(frozen=True)
class Padded:
    """Histories in pieces of 200 steps, as the toolkits hold them."""

    concepts: Tensor  # (N, 200) int64
    correct: Tensor  # (N, 200) int64
    mask: Tensor  # (N, 200) bool
    rows: Tensor  # (N, 200) int64: the row of the table

    @classmethod
    def of(cls, table: pl.DataFrame, ids: dict[tuple[str, ...], int]) -> Padded:
        """The table's answers; an answer's skills together are its concept."""
        concept = [ids.get(tuple(skills), 0) for skills in table["skills"].to_list()]
        place = table.select(pl.int_range(pl.len()).over("learner")).to_series().to_numpy()
        learner = table["learner"].rle_id().to_numpy().astype(np.int64)
        piece = np.unique(learner * 10_000 + place // STEPS, return_inverse=True)[1]
        shape, at = (int(piece.max()) + 1, STEPS), (piece, place % STEPS)
        held = {
            "concepts": np.array(concept),
            "correct": (table["correct"].to_numpy() > 0.5).astype(np.int64),
            "mask": np.ones(len(piece), np.bool_),
            "rows": np.arange(len(piece)),
        }
        padded = {}
        for name, values in held.items():
            wide = np.zeros(shape, values.dtype)
            wide[at] = values
            padded[name] = torch.from_numpy(wide)
        return cls(**padded)

    def batches(self, size: int, *, shuffled: bool) -> Iterator[Padded]:
        count = len(self.mask)
        order = torch.randperm(count) if shuffled else torch.arange(count)
        for start in range(0, count, size):
            chosen = order[start : start + size]
            yield Padded(
                *(getattr(self, n)[chosen] for n in ("concepts", "correct", "mask", "rows"))
            )


class Dkt(nn.Module):
    """Deep knowledge tracing (Piech et al. 2015): what was answered → a chance of every concept."""

    batch_size = 256
    rate = 1e-3

    def __init__(self, concepts: int, width: int) -> None:
        super().__init__()
        self.concepts = concepts
        self.answered = nn.Embedding(2 * concepts, width)
        self.memory = nn.LSTM(width, width, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(width, concepts)

    def forward(self, given: Padded) -> Tensor:
        """Chances (N, 199) of the second answer of each piece, and of those after it."""
        answered = self.answered(given.concepts + self.concepts * given.correct)
        chances = torch.sigmoid(self.out(self.dropout(self.memory(answered)[0])))
        asked = one_hot(given.concepts[:, 1:], self.concepts)
        return (chances[:, :-1] * asked).sum(dim=-1)


class MaskedLayer(nn.Module):
    """What is asked looks among what was answered; what lies ahead is masked."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.joined = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.normed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, width)
        )
        self.dropout = nn.Dropout(0.2)

    def forward(self, state: Tensor, told: Tensor, seen: Tensor) -> Tensor:
        """Vectors (N, T, width) after one more look; `seen` is (T, T), True where one may look."""
        query, key, value = (
            made(of).view(*of.shape[:2], self.heads, -1).transpose(1, 2)
            for made, of in ((self.query, state), (self.key, told), (self.value, told))
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        share = self.dropout(scores.masked_fill(~seen, -1e32).softmax(dim=-1))
        read = self.joined((share @ value).transpose(1, 2).flatten(2))
        state = self.norm(state + self.dropout(read))
        result: Tensor = self.normed(state + self.dropout(self.inner(state)))
        return result


class Masked(nn.Module):
    """Two layers of attention over all pairs of steps, those ahead masked (after SAKT, AKT)."""

    batch_size = 64
    rate = 1e-3

    def __init__(self, concepts: int, width: int, layers: int = 2, heads: int = 8) -> None:
        super().__init__()
        self.concepts = concepts
        self.asked = nn.Embedding(concepts, width)
        self.answered = nn.Embedding(2 * concepts, width)
        self.place = nn.Embedding(STEPS, width)
        self.layers = nn.ModuleList(MaskedLayer(width, heads) for _ in range(layers))
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, given: Padded) -> Tensor:
        """Chances (N, 199) of the second answer of each piece, and of those after it."""
        answered = self.answered(given.concepts + self.concepts * given.correct)[:, :-1]
        told = answered + self.place.weight[: answered.shape[1]]
        asked = self.asked(given.concepts[:, 1:])
        state, steps = asked, asked.shape[1]
        seen = torch.ones(steps, steps, dtype=torch.bool).tril()
        for layer in self.layers:
            state = layer(state, told, seen)
        return torch.sigmoid(self.out(torch.cat([state, asked], dim=-1))).squeeze(-1)


class Toolkit:
    """A network of the toolkits' kind and its training."""

    def __init__(self, network: Dkt | Masked) -> None:
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=network.rate)

    def epoch(self, data: Padded) -> float:
        """Learn from all answers once; returns answers per second."""
        self.network.train()
        begin = time.perf_counter()
        for given in data.batches(self.network.batch_size, shuffled=True):
            loss = self.loss(given)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return int(data.mask.sum()) / (time.perf_counter() - begin)

    def loss(self, given: Padded) -> Tensor:
        mask = given.mask[:, 1:]
        chances, truth = self.network(given)[mask], given.correct[:, 1:][mask]
        return binary_cross_entropy(chances.double(), truth.double())

    def told(self, data: Padded) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The rows that it predicts, and their chances."""
        self.network.eval()
        rows, chances = [], []
        with torch.no_grad():
            for given in data.batches(self.network.batch_size, shuffled=False):
                mask = given.mask[:, 1:]
                rows.append(given.rows[:, 1:][mask])
                chances.append(self.network(given)[mask].double())
        return torch.cat(rows).numpy(), torch.cat(chances).numpy()

    def learn(self, data: Padded, held_out: Padded) -> int:
        """Train until validation gains no more, and keep the best; returns the epochs."""
        best, kept, since, epochs = np.inf, self.network.state_dict(), 0, 0
        truth = held_out.correct[:, 1:][held_out.mask[:, 1:]].numpy()
        while since < PATIENCE and epochs < MOST_EPOCHS:
            self.epoch(data)
            epochs += 1
            chances = self.told(held_out)[1]
            loss = -float(np.log(np.where(truth == 1, chances, 1 - chances).clip(1e-9)).mean())
            since += 1
            if loss < best:
                best, kept, since = loss, copy.deepcopy(self.network.state_dict()), 0
        self.network.load_state_dict(kept)
        return epochs


KINDS: dict[str, Callable[[int], Dkt | Masked]] = {
    "LSTM-200": lambda concepts: Dkt(concepts, 200),
    "attention 256x2": lambda concepts: Masked(concepts, 256),
}


class Apart:
    """A toolkit's network in a process of its own: ours changes how memory is kept."""

    def __init__(self, kind: str, uris: dict[str, str], learners: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        arguments = (there, kind, uris, learners)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        there.close()

    def asked(self, what: str) -> Any:
        """What `Toolkit` answers to "epoch", or to "worth"; raises EOFError where it died."""
        self._here.send(what)
        return self._here.recv()

    def end(self) -> None:
        """Stop the process; it may stand in the middle of nothing."""
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, kind: str, uris: dict[str, str], learners: int | None) -> None:
    torch.set_num_threads(THREADS)
    parts = read(uris, learners)
    names = sorted({tuple(skills) for skills in parts["train"]["skills"].to_list()})
    ids = {name: number for number, name in enumerate(names)}
    data = {name: Padded.of(table, ids) for name, table in parts.items()}
    toolkit = Toolkit(KINDS[kind](len(ids)))
    while True:
        if pipe.recv() == "epoch":
            pipe.send(toolkit.epoch(data["train"]))
        else:
            more = toolkit.learn(data["train"], data["validation"])
            pipe.send((more, *toolkit.told(data["test"])))


def read(uris: dict[str, str], learners: int | None) -> dict[str, pl.DataFrame]:
    """The splits; to learn from, the first learners alone."""
    parts = {name: read_parquet(uri) for name, uri in uris.items()}
    train = parts["train"]
    first = train["learner"].unique(maintain_order=True).head(learners or len(train)).implode()
    return parts | {"train": train.filter(pl.col("learner").is_in(first))}
