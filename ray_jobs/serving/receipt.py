"""Prediction ids: signed notes of what was predicted, so that feedback needs no look-up.

An id holds version, time, pseudonym and predictions, readable by anyone and
made only by holders of the installation's key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key

KEPT = 16  # predictions in an id at most: it travels with every answer


@dataclass(frozen=True)
class Receipt:
    """What was predicted, when, by which version, for whom."""

    version: str
    time_s: int  # unix seconds
    learner: str | None  # pseudonym
    predictions: list[float]  # the first of them, rounded


def signed(key: Key, *, version: str, learner: str | None, predictions: Sequence[float]) -> str:
    """A prediction id; the learner's own name is not in it."""
    payload = orjson.dumps(
        {
            "v": version,
            "t": int(time.time()),
            "l": key.pseudonym(learner) if learner else None,
            "p": [round(p, 4) for p in predictions[:KEPT]],
        }
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
    return Receipt(values["v"], values["t"], values["l"], values["p"])
