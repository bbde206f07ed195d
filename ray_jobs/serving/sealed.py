"""State tokens: what a client keeps for us, readable and made by holders of the key alone.

A token names its service, version and model openly, and is sealed under them (AES-256-GCM): to
another model it means nothing, and that one says so rather than guess. Versions are numbered
by a registry, of which an installation may have several under one key: so its digest counts.
"""

from __future__ import annotations

import base64
import binascii
import os

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ray_jobs.privacy import Key
from ray_jobs.serving.problem import Problem

NONCE = 12  # bytes
WAY_OUT = "send the history instead, or get a new state for it from v1/state"


def sealed(key: Key, data: bytes, *, service: str, version: str, digest: str) -> str:
    """A token of these bytes."""
    about, nonce = orjson.dumps([service, version, digest]), os.urandom(NONCE)
    return f"{_text(about)}.{_text(nonce + _cipher(key).encrypt(nonce, data, about))}"


def opened(key: Key, token: str, *, service: str, version: str, digest: str, pointer: str) -> bytes:
    """The bytes of a token; raises Problem: 409 for another version's, 422 for none of ours."""
    about, _, closed = token.partition(".")
    try:
        its_service, its_version, its_digest = origin = _names(_bytes(about))
        data = _bytes(closed)
    except (binascii.Error, ValueError) as error:
        raise _refused(422, pointer, f"not a state that v1/state gave; {WAY_OUT}") from error
    if origin != [service, version, digest]:
        whose = f"version {its_version} of {its_service}"[:200]
        if (its_service, its_version) == (service, version):
            whose = f"another {whose} ({its_digest[:20]})"
        detail = f"made by {whose}, and this is version {version} of {service}; {WAY_OUT}"
        raise _refused(409, pointer, detail)
    try:
        return _cipher(key).decrypt(data[:NONCE], data[NONCE:], _bytes(about))
    except (InvalidTag, ValueError) as error:
        detail = f"damaged, or sealed with another key than this installation's; {WAY_OUT}"
        raise _refused(422, pointer, detail) from error


def _names(about: bytes) -> list[str]:
    """Service, version and digest; raises ValueError for what is no list of texts."""
    origin = orjson.loads(about)
    if not (isinstance(origin, list) and all(isinstance(part, str) for part in origin)):
        raise ValueError("no names")
    return origin


def _refused(status: int, pointer: str, detail: str) -> Problem:
    return Problem(status, f"{pointer}: {detail}", [{"pointer": pointer, "detail": detail}])


def _cipher(key: Key) -> AESGCM:
    return AESGCM(key.sub_key("state"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
