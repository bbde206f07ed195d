"""Prediction ids: signed notes of what was predicted, so that feedback needs no look-up.

An id holds service, version, time, an alias of the learner, what was asked, what was
predicted and what could have happened, readable by anyone and made only by holders of
the installation's key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice, zip_longest
from typing import Any

import orjson

from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key
from ray_jobs.target import Target

KEPT = 16  # predictions in an id at most: it travels with every answer
LONGEST = 1 << 16  # characters of an id
ROOM = 1 << 15  # bytes in it for predictions, rows and target: as base64, well below that
EARLIEST = 7  # values of an id that feedback can be given on; they came without a target
NONCE = 8  # bytes that tell two ids of one moment apart


@dataclass(frozen=True)
class Receipt:
    """What was predicted, when, by which version, for whom."""

    id: str  # 16 hexadecimal digits, of this prediction alone
    service: str
    version: str
    time_s: int  # unix seconds
    learner: str | None  # alias
    predictions: list[Any]  # the first of them, rounded: a number each, or one for each class
    # What each was about, as a log tells it, None where that is too long; empty: of no outcome.
    rows: list[dict[str, Any] | None]
    target: Target | None = None  # of the version; None: not told

    def encoded(self) -> bytes:
        """What is signed, and kept."""
        own = [self.id, self.service, self.version, self.time_s, self.learner]
        return orjson.dumps([*own, self.predictions, self.rows, *_values(self.target)])

    @classmethod
    def decoded(cls, payload: bytes) -> Receipt:
        """What was encoded; raises ValueError of what says too little for a receipt."""
        values = orjson.loads(payload)
        if not isinstance(values, list) or not EARLIEST <= len(values) <= EARLIEST + 1:
            raise ValueError("no receipt of today's layout")
        targets = (Target(kind, tuple(outcomes)) for kind, *outcomes in values[EARLIEST:])
        return cls(*values[:EARLIEST], *targets)


def made(
    key: Key,
    *,
    service: str,
    version: str,
    learner: str | None,
    predictions: Iterable[Any],
    rows: Iterable[dict[str, Any]] = (),
    target: Target | None = None,
) -> Receipt:
    """The note of a prediction made now; the learner's own name is not in it."""
    room = ROOM - _size(target)
    told, about = _fitting([_rounded(p) for p in islice(predictions, KEPT)], rows, room)
    return Receipt(
        id=os.urandom(NONCE).hex(),
        service=service,
        version=version,
        time_s=int(time.time()),
        learner=key.alias(learner) if learner else None,
        predictions=told,
        rows=about,
        target=target if about else None,
    )


def signed(key: Key, payload: bytes) -> str:
    """The prediction id of an encoded note."""
    text = base64.urlsafe_b64encode(payload).decode().rstrip("=")
    return f"{text}.{key.signature(payload)}"


def verified(key: Key, prediction_id: str) -> Receipt:
    """What an id says; raises ContractError when this installation did not sign it."""
    text, _, signature = prediction_id.partition(".")
    try:
        payload = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        # Of several spellings of the same bytes only ours is one that was given out.
        spelt = base64.urlsafe_b64encode(payload).decode().rstrip("=") == text
        genuine = spelt and hmac.compare_digest(key.signature(payload), signature)
    except (binascii.Error, TypeError, ValueError):
        genuine = False
    if not genuine:
        raise ContractError(
            f"prediction_id {prediction_id[:40]!r} was not given out here; send it back as it came"
        )
    try:
        return Receipt.decoded(payload)
    except ValueError as error:
        raise too_little(prediction_id) from error


def too_little(prediction_id: str) -> ContractError:
    """What is told of an id that is ours and yet of no use."""
    return ContractError(
        f"prediction_id {prediction_id[:40]!r} was given out by an earlier Lyceum, and says "
        "too little for feedback"
    )


def _values(target: Target | None) -> list[list[str]]:
    """How a target stands in an id: as one value more, or none."""
    return [[target.kind, *target.outcomes]] if target else []


@lru_cache
def _size(target: Target | None) -> int:
    return len(orjson.dumps(_values(target)))


def _fitting(
    predictions: list[Any], rows: Iterable[dict[str, Any]], room: int
) -> tuple[list[Any], list[dict[str, Any] | None]]:
    """As many of the first predictions and rows as there is room for."""
    about: list[dict[str, Any] | None] = list(islice(rows, KEPT))
    if len(orjson.dumps((predictions, about))) <= room - 2 * KEPT:  # as nearly always
        return predictions, about
    sizes = accumulate(len(orjson.dumps(pair)) for pair in zip_longest(predictions, about))
    many = sum(size <= room for size in sizes)
    if about and not many and len(orjson.dumps(predictions[:1])) <= room:
        # Its outcome counts all the same, though nobody can learn from it.
        return predictions[:1], [None]
    return predictions[:many], about[:many]


def _rounded(prediction: Any) -> Any:
    if isinstance(prediction, list):
        return [round(p, 4) for p in prediction]
    return round(prediction, 6)
