"""Who may call: a key of the service, with leave for the action, within its limit.

Whatever is wrong with a key, the answer is the same to the letter, so that it tells
nothing of which keys there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ray_jobs.privacy import Key
from ray_jobs.serving.asgi import Call
from ray_jobs.serving.keys import OPERATOR, Keyring, is_operator, of_header
from ray_jobs.serving.limits import Limits
from ray_jobs.serving.problem import Problem


@dataclass(frozen=True)
class Door:
    """The keys of an installation, at one service."""

    service: str
    secret: Key  # of the installation
    ring: Keyring
    limits: Limits
    clock: Callable[[], float] = time.time

    async def admit(self, call: Call, action: str) -> str:
        """The id of the key that calls; raises Problem: 401, 403 or 429."""
        text = of_header(call.headers.get(b"authorization", b""))
        if text.startswith(OPERATOR) and is_operator(self.secret, text, self.clock()):
            return OPERATOR
        key = self.ring.find(text)
        if key is None:
            raise _nobody()
        if not key.allows(self.service, action):
            raise _not_allowed()
        await self.limits.spend(key)
        return key.id


def _nobody() -> Problem:
    return Problem(
        401,
        "send a key of this service as authorization: Bearer KEY; lyceum keys create makes one",
        headers=((b"www-authenticate", b"Bearer"),),
    )


def _not_allowed() -> Problem:
    detail = "this key may not do that here; lyceum keys create makes keys for other actions"
    return Problem(403, detail)
