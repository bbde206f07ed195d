"""What rows amount to, as numbers that add up: over batches, files and deliveries.

A row is hashed to 64 bits, and a column that is not there counts as one of nulls.
Sums of such hashes know no order (AdHASH, Bellare and Micciancio 1997); a
polynomial in them does. They tell deliveries apart, and withstand no enemy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Words = NDArray[np.uint64]
# Rows, the place of a word in their texts, the words, and which of them are none.
Part = tuple[slice | NDArray[np.int64], int, Words, NDArray[np.bool_] | None]

LANES = 2  # of 64 bits
MODULUS = 2**64
# Odd constants of large multiplicative order, one for each lane.
FACTORS = (0x9E3779B97F4A7C15, 0xD1342543DE82EF95)
BASE = (0x5851F42D4C957F2D, 0x2545F4914F6CDD1D)  # of the polynomial
WORD = 8  # bytes
CACHED_ROWS = 1 << 14  # worked on at a time, so that they stay in the processor's cache
MASKS = np.array([2 ** (8 * n) - 1 for n in range(WORD + 1)], np.uint64)  # the first n bytes


@dataclass(frozen=True)
class Content:
    """What some rows amount to; that of two heaps follows from that of each."""

    rows: int = 0
    heap: tuple[int, ...] = (0,) * LANES  # the same in every order
    series: tuple[int, ...] = (0,) * LANES  # the same in this order alone

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Content:
        """Of a table of String and unsigned columns."""
        lanes = hashes(frame)
        n = len(frame)
        return cls(
            rows=n,
            heap=tuple(int(lane.sum(dtype=np.uint64)) for lane in lanes),
            series=tuple(
                int((lane * _powers(base, n)).sum(dtype=np.uint64))
                for lane, base in zip(lanes, BASE, strict=True)
            ),
        )

    def then(self, other: Content) -> Content:
        """Of these rows with the others behind them."""
        series = zip(self.series, other.series, BASE, strict=True)
        return Content(
            rows=self.rows + other.rows,
            heap=tuple((a + b) % MODULUS for a, b in zip(self.heap, other.heap, strict=True)),
            series=tuple((a * pow(r, other.rows, MODULUS) + b) % MODULUS for a, b, r in series),
        )

    def digest(self, *, ordered: bool) -> str:
        """64 hex digits for the rows as a multiset, or as a sequence."""
        lanes = self.series if ordered else self.heap
        text = ":".join(map(str, (self.rows, ordered, *lanes)))
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def loads(cls, value: dict[str, Any]) -> Content:
        """From a record as JSON has it, where 64 bits are written as text."""
        return cls(value["rows"], _numbers(value["heap"]), _numbers(value["series"]))

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "heap": [str(lane) for lane in self.heap],
            "series": [str(lane) for lane in self.series],
        }


def hashes(frame: pl.DataFrame) -> list[Words]:
    """Of each of N rows, in each lane: (N,) uint64, whatever the order of the columns."""
    rows = np.zeros(len(frame), np.uint64)
    for column in frame.iter_columns():
        if column.null_count() < len(column):
            _add(column, rows)
    return [_mixed(rows.copy(), factor) for factor in FACTORS]


def _add(column: pl.Series, rows: Words) -> None:
    """Add what a column's values contribute to each row; a null contributes nothing."""
    words = _text_words if column.dtype == pl.String else _number_words
    for some, at, found, absent in words(column):
        np.add(found, _salt(column.name, at), out=found)
        mixed = _mixed(found, FACTORS[0])
        if absent is not None:
            mixed[absent] = 0
        rows[some] += mixed


@cache
def _salt(name: str, at: int) -> np.uint64:
    """What tells a column's word at a place from the same word elsewhere."""
    digest = hashlib.sha256(f"{at}:{name}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:WORD], "little"))


def _number_words(column: pl.Series) -> Iterator[Part]:
    absent = column.is_null().to_numpy() if column.null_count() else None
    numbers = column.cast(pl.UInt64).fill_null(0).to_numpy(writable=True)
    for begin in range(0, len(column), CACHED_ROWS):
        some = slice(begin, begin + CACHED_ROWS)
        yield some, 0, numbers[some], None if absent is None else absent[some]


def _text_words(column: pl.Series) -> Iterator[Part]:
    """A text's first seven bytes with its length, then its others, eight at a time.

    For a few rows at a time; most texts are short, and are one word.
    """
    text = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = text.buffers()
    bounds = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    octets = np.frombuffer(data or b"", np.uint8)
    octets = np.concatenate([octets, np.zeros(WORD, np.uint8)])
    eights = np.ndarray((len(octets) - WORD + 1,), "<u8", octets.data, strides=(1,))
    absent = column.is_null().to_numpy() if column.null_count() else None
    for begin in range(0, len(text), CACHED_ROWS):
        some = slice(begin, min(begin + CACHED_ROWS, len(text)))
        starts = bounds[some]
        lengths = bounds[begin + 1 : some.stop + 1] - starts
        words = eights[starts] & MASKS[np.minimum(lengths, WORD - 1)]
        words |= lengths.astype(np.uint64) << np.uint64(8 * (WORD - 1))
        yield some, 0, words, None if absent is None else absent[some]
        for at in range(WORD - 1, int(lengths.max(initial=0)), WORD):
            rows = np.flatnonzero(lengths > at)
            words = eights[starts[rows] + at]
            words &= MASKS[np.minimum(lengths[rows] - at, WORD)]
            yield rows + begin, at, words, None


def _mixed(lane: Words, factor: int) -> Words:
    """Every bit of a word takes part in every other, in place (a round of splitmix)."""
    lane *= np.uint64(factor)
    lane ^= lane >> np.uint64(32)
    lane *= np.uint64(factor)
    lane ^= lane >> np.uint64(29)
    return lane


def _powers(base: int, count: int) -> Words:
    """Falling powers of a base, the last of them 1."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)[::-1]


def _numbers(texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(text) for text in texts)
