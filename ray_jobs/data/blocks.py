"""Files to blocks of whole lines, so that no file need fit in memory.

From here on text is UTF-8 with plain line feeds and no byte order mark; bytes
that its encoding has not become UNREADABLE, and whoever makes rows sets them apart.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError

BLOCK_BYTES = 16 << 20
UNREADABLE_BYTES = "unreadable_bytes"  # the reason of rows that hold such
UNREADABLE = "\ufffd"  # stands where bytes are not UTF-8
ZERO_WIDTH = "\ufeff"  # a byte order mark, decoded
LONGEST_MARK = 3  # bytes
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Block:
    """Whole lines of a file, the last one of a file perhaps without its line feed."""

    data: bytes
    line: int  # 1-based number of the first
    last: bool  # nothing comes after it

    @property
    def text(self) -> str:
        return self.data.decode()


def blocks(source: Source, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """A file's lines, about `size` bytes at a time; an empty file is one empty block.

    Raises ContractError where it cannot be read, or is not text.
    """
    ready, rest, line = b"", b"", 1  # what is ready waits, since it may be the last
    for chunk in _text_chunks(source, size):
        whole, feed, beyond = chunk.rpartition(b"\n")
        if not feed:
            rest += chunk
            continue
        if ready:
            yield Block(_utf8(ready), line, last=False)
            line += ready.count(b"\n")
        ready, rest = rest + whole + feed, beyond
    yield Block(_utf8(ready + rest), line, last=True)


def _text_chunks(source: Source, size: int) -> Iterator[bytes]:
    """Chunks of a file in UTF-8 without a mark, with plain line feeds."""
    held = b""
    for chunk in _unmarked(source, size):
        # A carriage return at the end may be the first half of a line end.
        data, held = held + chunk, b""
        if data.endswith(b"\r"):
            data, held = data[:-1], b"\r"
        yield data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
    yield held.replace(b"\r", b"\n")


def _unmarked(source: Source, size: int) -> Iterator[bytes]:
    """Chunks of a file in UTF-8, as its mark or its source says that they are to be read."""
    chunks = source.chunks(max(size, LONGEST_MARK))
    first = next(chunks, b"")
    marked = next((name for mark, name in MARKS.items() if first.startswith(mark)), "")
    encoding = source.encoding or marked
    if not encoding or codecs.lookup(encoding).name in {"utf-8", "utf-8-sig"}:
        _refuse_binary(source, first)
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    text = decoder.decode(first).removeprefix(ZERO_WIDTH)
    for chunk in chunks:
        yield text.encode()
        text = decoder.decode(chunk)
    yield (text + decoder.decode(b"", final=True)).encode()


def _refuse_binary(source: Source, chunk: bytes) -> None:
    if b"\0" in chunk[:4096]:
        raise ContractError(
            f"{source.url} holds NUL bytes: it is binary, or UTF-16 without a byte order mark; "
            "expected text. Name its encoding with --set encoding=utf-16-le"
        )


def _utf8(data: bytes) -> bytes:
    """The same bytes where they are UTF-8."""
    if data.isascii():
        return data
    return data.decode("utf-8", "replace").encode()
