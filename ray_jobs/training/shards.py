"""Examples on this node's own disk: packed once, read one by one, so that memory does not grow.

A record for each example lies in one file, found through an index of ends and
costs; what is read often stays in the page cache, which belongs to nobody.
A reading that fails is an error here, where a mapped page would end the process.
"""

from __future__ import annotations

import math
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from ray_jobs import node_cache
from ray_jobs.errors import StoreError

RECORDS, ENDS, COSTS, ABOUT = "records.bin", "ends.npy", "costs.npy", "about.json"


@dataclass(frozen=True)
class Field:
    """One field of an example: an array whose first axis may have any length, or one value."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None  # of one step; None: a single value and no axis at all

    @classmethod
    def of(cls, name: str, value: Any) -> Field:
        array = np.asarray(value)
        # What is not plain numbers or truths would need pickle to come back.
        assert array.dtype.kind in "biuf", f"{name}: {array.dtype} cannot be packed"
        return cls(name, array.dtype.str, array.shape[1:] if array.ndim else None)


@dataclass(frozen=True)
class Layout:
    """How examples of one type lie in bytes: the lengths of their arrays, then all values.

    The widest values come first, so that every array lies at a multiple of its own.
    """

    record: type[Any]
    fields: tuple[Field, ...]

    @classmethod
    def of(cls, example: Any) -> Layout:
        named = [Field.of(f.name, getattr(example, f.name)) for f in fields(example)]
        named.sort(key=lambda field: -np.dtype(field.dtype).itemsize)
        return cls(type(example), tuple(named))

    def encode(self, example: Any) -> bytes:
        """An example as bytes; fails where it is not laid out like the first one."""
        lengths, parts = [], []
        for field in self.fields:
            value = np.asarray(getattr(example, field.name))
            alike = value.dtype.str == field.dtype and value.shape[1:] == (field.shape or ())
            assert alike, f"{field.name}: {value.dtype} {value.shape}, unlike the first example's"
            if field.shape is not None:
                lengths.append(len(value))
            parts.append(value.tobytes())
        return np.array(lengths, np.int64).tobytes() + b"".join(parts)

    def decode(self, data: bytearray) -> Any:
        """The example again, its arrays on top of these bytes."""
        place, values = 8 * self._ragged, {}
        lengths = iter(np.frombuffer(data, np.int64, self._ragged).tolist())
        for name, dtype, shape, size in self._steps:
            steps = 1 if shape is None else next(lengths)
            array = np.frombuffer(data, dtype, steps * size, place)
            place += array.nbytes
            values[name] = array.reshape(steps, *shape) if shape else array
            if shape is None:
                values[name] = array.item()
        return self.record(**values)

    @cached_property
    def _ragged(self) -> int:
        return sum(field.shape is not None for field in self.fields)

    @cached_property
    def _steps(self) -> list[tuple[str, np.dtype[Any], tuple[int, ...] | None, int]]:
        """Name, type, shape and number of values of a step of each field."""
        return [(f.name, np.dtype(f.dtype), f.shape, math.prod(f.shape or ())) for f in self.fields]


def cache(home: Path) -> Path:
    """Where a node keeps shards: on its own disk."""
    return home / "cache" / "shards"


class Shards(Sequence[Any]):
    """Packed examples, each read when it is asked for."""

    def __init__(self, folder: Path, record: type[Any]) -> None:
        about = orjson.loads((folder / ABOUT).read_bytes())
        named = (Field(f["name"], f["dtype"], _shape(f["shape"])) for f in about["fields"])
        self._layout = Layout(record, tuple(named))
        self._ends: NDArray[np.int64] = np.load(folder / ENDS)
        self.costs: NDArray[np.int64] = np.load(folder / COSTS)  # (N,) positions in a batch
        self._path = folder / RECORDS
        self._file = os.open(self._path, os.O_RDONLY)
        self._closed = weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> Any:  # type: ignore[override]
        """Raises StoreError where the file is shorter than it was."""
        begin = int(self._ends[i - 1]) if i else 0
        size = int(self._ends[i]) - begin
        data = bytearray(size)  # which arrays may be written to, as tensors expect
        if os.preadv(self._file, [data], begin) != size:
            raise StoreError(f"{self._path} was cut short; remove its folder and run again")
        return self._layout.decode(data)


def local(
    within: Path,
    key: str,
    record: type[Any],
    examples: Callable[[], Iterable[Sequence[Any]]],
    cost: Callable[[Any], int],
) -> Shards:
    """The shards of a key on this node; the first who asks packs them, the others wait.

    Raises StoreError where the disk refuses.
    """

    def packed(folder: Path) -> None:
        _pack(folder, examples(), cost)

    return Shards(node_cache.kept(within, key, packed, what="examples"), record)


def pack(folder: Path, examples: Iterable[Sequence[Any]], cost: Callable[[Any], int]) -> None:
    """Write examples, lot by lot, into a folder that is there whole or not at all."""
    node_cache.whole(folder, lambda half: _pack(half, examples, cost))


def _pack(half: Path, examples: Iterable[Sequence[Any]], cost: Callable[[Any], int]) -> None:
    layout: Layout | None = None
    ends, costs = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with (half / RECORDS).open("wb", buffering=1 << 20) as file:
        for lot in examples:
            if not len(lot):
                continue
            layout = layout or Layout.of(lot[0])
            start = int(ends[-1][-1]) if len(ends[-1]) else 0
            ends.append(start + _written(lot, layout, file))
            costs.append(np.fromiter(map(cost, lot), np.int64, len(lot)))
            del lot  # before the next one is made
    np.save(half / ENDS, np.concatenate(ends))
    np.save(half / COSTS, np.concatenate(costs))
    about = {"fields": layout.fields if layout else []}
    (half / ABOUT).write_bytes(orjson.dumps(about))


def forget(within: Path, keys: Iterable[str]) -> None:
    """Remove shards; whoever has them open reads on."""
    for key in keys:
        shutil.rmtree(within / key, ignore_errors=True)


def _written(lot: Sequence[Any], layout: Layout, file: BinaryIO) -> NDArray[np.int64]:
    """Where each example of a lot ends, counted from where the lot begins."""
    sizes = np.fromiter((file.write(layout.encode(e)) for e in lot), np.int64, len(lot))
    return np.cumsum(sizes)


def _shape(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
