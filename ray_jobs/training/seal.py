"""The seal of a state in parts: what it is made of, and where on the store the bytes of each lie.

JSON behind its own digest. It names its parts by theirs, so that whoever finds
it can tell a whole state from a damaged one without a pickle.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

import orjson
import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from ray_jobs import remote, store

SEAL = "seal"
DIGEST = 32  # bytes of it before the seal's own words
BLOCK = 1 << 22  # bytes that are looked at together


@dataclass(frozen=True)
class Piece:
    """A rectangle of a tensor, and where its bytes lie."""

    name: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    part: str  # the file
    begin: int
    length: int  # bytes

    @property
    def key(self) -> MetadataIndex:
        return MetadataIndex(self.name, self.offsets)


@dataclass(frozen=True)
class Seal:
    """What a state is made of."""

    parts: dict[str, int]  # names, which are digests, and sizes in bytes
    tensors: dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name
    pieces: list[Piece]

    @classmethod
    def of(cls, metadata: Metadata, parts: dict[str, int], pieces: list[Piece]) -> Self:
        """What torch tells of a state, and where it was put."""
        tensors = {
            name: (word(known.properties.dtype), tuple(known.size))
            for name, known in metadata.state_dict_metadata.items()
            if isinstance(known, TensorStorageMetadata)
        }
        return cls(parts, tensors, pieces)

    def write(self, uri: str) -> None:
        text = orjson.dumps(asdict(self))
        data = hashlib.sha256(text).digest() + text
        store.write_bytes(store.join(uri, SEAL), data)

    @staticmethod
    def text(uri: str) -> str:
        """The words of a seal; none where it is damaged."""
        data = store.read_bytes(store.join(uri, SEAL))
        whole = hashlib.sha256(data[DIGEST:]).digest() == data[:DIGEST]
        return data[DIGEST:].decode() if whole else ""

    @classmethod
    def parsed(cls, text: str) -> Self:
        values = orjson.loads(text)
        tensors = {
            name: (dtype, tuple(shape)) for name, (dtype, shape) in values["tensors"].items()
        }
        pieces = [
            Piece(**{**p, "offsets": tuple(p["offsets"]), "sizes": tuple(p["sizes"])})
            for p in values["pieces"]
        ]
        return cls(values["parts"], tensors, pieces)

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the state is of these tensors, however they are divided."""
        return self.tensors == {k: (word(t.dtype), tuple(t.shape)) for k, t in tensors.items()}

    def metadata(self) -> Metadata:
        """The same in the words of torch."""
        chunks: dict[str, list[ChunkStorageMetadata]] = defaultdict(list)
        for piece in self.pieces:
            if piece.length:
                size = torch.Size(piece.sizes)
                chunks[piece.name].append(ChunkStorageMetadata(torch.Size(piece.offsets), size))
        return Metadata(
            {
                name: TensorStorageMetadata(
                    TensorProperties(getattr(torch, dtype)), torch.Size(shape), chunks[name]
                )
                for name, (dtype, shape) in self.tensors.items()
            }
        )


@remote.waits
def damaged(uri: str, part: str) -> bool:
    """Whether a part of a state is not there, or is not what was written."""
    found = hashlib.sha256()
    try:
        with remote.opened(store.join(uri, part), ahead_bytes=BLOCK) as file:
            while block := file.read(BLOCK):
                found.update(block)
    except FileNotFoundError:
        return True
    return found.hexdigest() != part


def word(dtype: torch.dtype) -> str:
    """A type's name as it is written down."""
    return str(dtype).removeprefix("torch.")
