"""What torch's distributed checkpoints write to and read from: files on the store.

A worker's part is one file. Of a sealed state a worker reads the rows it needs,
however the workers that wrote it had divided them.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from ray_jobs import remote, store
from ray_jobs.errors import StoreError
from ray_jobs.training.seal import Piece, Seal


class Writer(StorageWriter):
    """Writes a worker's part, whole in its host's memory before; the first worker seals them."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Put the tensors of a plan into one file named by its digest."""
        datas = [_bytes(planner.resolve_data(item)) for item in plan.items]
        data = b"".join(datas)
        part, begin = hashlib.sha256(data).hexdigest(), 0
        store.write_bytes(store.join(self._uri, part), data)
        results = []
        for item, piece in zip(plan.items, datas, strict=True):
            assert item.tensor_data is not None, f"{item.index.fqn} is no tensor"
            chunk = item.tensor_data.chunk
            offsets, sizes = tuple(chunk.offsets), tuple(chunk.sizes)
            place = Piece(item.index.fqn, offsets, sizes, part, begin, len(piece))
            results.append(WriteResult(item.index, len(piece), place))
            begin += len(piece)
        return _done(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Seal what all have written; raises StoreError where that cannot be seen from here."""
        pieces = [result.storage_data for written in results for result in written]
        sizes: dict[str, int] = defaultdict(int)
        for piece in pieces:
            sizes[piece.part] = max(sizes[piece.part], piece.begin + piece.length)
        there = store.sizes(self._uri)
        if any(there.get(part) != size for part, size in sizes.items()):
            raise StoreError(
                f"not every worker's part of {self._uri} is there; "
                "the store must be one place, shared by all nodes"
            )
        Seal.of(metadata, dict(sizes), pieces).write(self._uri)

    def reset(self, checkpoint_id: Any = None) -> None: ...

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return checkpoint_id is None


class Reader(StorageReader):
    """Reads of a sealed state what a worker needs, row by row, and no more."""

    def __init__(self, uri: str, seal: Seal) -> None:
        self._uri, self._seal = uri, seal
        self._pieces = {piece.key: piece for piece in seal.pieces if piece.length}

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        return self._seal.metadata()

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill the tensors of a plan, file by file."""
        asked: dict[str, list[ReadItem]] = defaultdict(list)
        for item in plan.items:
            if math.prod(item.lengths):
                asked[self._pieces[item.storage_index].part].append(item)
        for part, items in asked.items():
            self._fill(part, items, planner)
        return _done(None)

    @remote.waits
    def _fill(self, part: str, items: Iterable[ReadItem], planner: LoadPlanner) -> None:
        with remote.opened(store.join(self._uri, part)) as file:
            for item in sorted(items, key=lambda i: self._pieces[i.storage_index].begin):
                target = planner.resolve_tensor(item).detach()
                target.copy_(self._read(file, item))
                planner.commit_tensor(item, target)

    def _read(self, file: Any, item: ReadItem) -> Tensor:
        """The rows that are asked for; of each, what is asked for."""
        piece = self._pieces[item.storage_index]
        dtype = getattr(torch, self._seal.tensors[piece.name][0])
        first, wanted = [*item.storage_offsets, 0][0], [*item.lengths, 1][0]
        row = piece.length // [*piece.sizes, 1][0]  # bytes; of a single number, all
        file.seek(piece.begin + row * first)
        data = bytearray(file.read(row * wanted))
        if len(data) != row * wanted:
            raise StoreError(f"{self._uri}/{piece.part} is cut short; run again")
        shape = (wanted, *piece.sizes[1:]) if piece.sizes else ()
        found = torch.frombuffer(data, dtype=dtype).view(shape)
        for axis in range(1, found.ndim):
            found = found.narrow(axis, item.storage_offsets[axis], item.lengths[axis])
        return found

    def reset(self, checkpoint_id: Any = None) -> None: ...

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return checkpoint_id is None


def _bytes(tensor: Any) -> bytes:
    flat = tensor.detach().reshape(-1).cpu().contiguous()
    return bytes(flat.view(torch.uint8).numpy().tobytes())


def _done(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future
