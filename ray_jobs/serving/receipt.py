"""Prediction ids: signed notes of what was predicted, so that feedback needs no look-up.

An id holds service, version, time, an alias of the learner, what was asked and what was
predicted, readable by anyone and made only by holders of the installation's key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key

KEPT = 16  # predictions in an id at most: it travels with every answer
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
    rows: list[dict[str, Any]]  # what each was about, as a log tells it; empty: of no outcome


def made(
    key: Key,
    *,
    service: str,
    version: str,
    learner: str | None,
    predictions: Iterable[Any],
    rows: Iterable[dict[str, Any]] = (),
) -> Receipt:
    """The note of a prediction made now; the learner's own name is not in it."""
    return Receipt(
        id=os.urandom(NONCE).hex(),
        service=service,
        version=version,
        time_s=int(time.time()),
        learner=key.alias(learner) if learner else None,
        predictions=[_rounded(p) for p in islice(predictions, KEPT)],
        rows=list(islice(rows, KEPT)),
    )


def signed(key: Key, note: Receipt) -> str:
    """A prediction id."""
    payload = orjson.dumps(
        [
            note.id,
            note.service,
            note.version,
            note.time_s,
            note.learner,
            note.predictions,
            note.rows,
        ]
    )
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
    values = orjson.loads(payload)
    if not isinstance(values, list):
        raise ContractError(
            f"prediction_id {prediction_id[:40]!r} was given out by an earlier Lyceum, and says "
            "too little for feedback"
        )
    return Receipt(*values)


def _rounded(prediction: Any) -> Any:
    if isinstance(prediction, list):
        return [round(p, 4) for p in prediction]
    return round(prediction, 6)
