"""Long lists in pieces that a service takes, as JSON that is written once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.client.errors import InvalidRequest

MAX_INSTANCES = 10_000
MAX_BODY = 16 * 2**20  # bytes
HEAD, TAIL = b'{"instances":[', b"]}"


@dataclass(frozen=True)
class Piece:
    """Some requests of a longer list."""

    first: int  # number of the first one in the list
    instances: Sequence[bytes]  # JSON

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def body(self) -> bytes:
        return HEAD + b",".join(self.instances) + TAIL

    def halves(self) -> tuple[Piece, Piece]:
        """Itself as two."""
        middle = len(self) // 2
        after = Piece(self.first + middle, self.instances[middle:])
        return Piece(self.first, self.instances[:middle]), after


def pieces(requests: Iterable[Mapping[str, Any]]) -> Iterator[Piece]:
    """Requests in order, as few pieces as the limits allow; one too large stands alone."""
    waiting: list[bytes] = []
    first, size = 0, len(HEAD) + len(TAIL)
    for number, request in enumerate(requests):
        text = written(request, f"/instances/{number}")
        full = len(waiting) == MAX_INSTANCES or size + len(text) + 1 > MAX_BODY
        if waiting and full:
            yield Piece(first, waiting)
            waiting, first, size = [], number, len(HEAD) + len(TAIL)
        waiting.append(text)
        size += len(text) + 1
    if waiting:
        yield Piece(first, waiting)


def written(request: Mapping[str, Any], pointer: str = "") -> bytes:
    """A request as JSON; raises InvalidRequest for what JSON has no word for."""
    try:
        text = json.dumps(request, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError) as error:
        what = f"{pointer or 'the request'} cannot be written as JSON: {error}"
        advice = "send plain text, numbers, lists and dicts"
        raise InvalidRequest(f"{what}; {advice}") from error
