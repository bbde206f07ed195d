"""Files to blocks of whole lines, so that no file need fit in memory.

From here on text is UTF-8 with plain line feeds and no byte order mark; bytes
that are not UTF-8 become UNREADABLE, and whoever makes rows sets them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ray_jobs.data.sources import Source
from ray_jobs.errors import ContractError

BLOCK_BYTES = 16 << 20
UNREADABLE = "\ufffd"  # stands where bytes are not UTF-8
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
    """Chunks of a file without its mark, with plain line feeds."""
    first, held = True, b""
    for chunk in source.chunks(size):
        if first:
            _refuse_binary(source, chunk)
            chunk = chunk.removeprefix(BYTE_ORDER_MARK)  # noqa: PLW2901
            first = False
        # A carriage return at the end may be the first half of a line end.
        data, held = held + chunk, b""
        if data.endswith(b"\r"):
            data, held = data[:-1], b"\r"
        yield data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
    yield held.replace(b"\r", b"\n")


def _refuse_binary(source: Source, chunk: bytes) -> None:
    if b"\0" in chunk[:4096]:
        raise ContractError(
            f"{source.url} holds NUL bytes: it is binary or UTF-16; expected UTF-8 text "
            f"(iconv -f UTF-16 -t UTF-8)"
        )


def _utf8(data: bytes) -> bytes:
    """The same bytes where they are UTF-8."""
    if data.isascii():
        return data
    return data.decode("utf-8", "replace").encode()
