"""Limits per key, shared by the replicas of a service: token buckets in one ledger.

A replica does not ask the ledger for each request but takes what a moment needs and
spends that by itself, so that a limit costs next to nothing and holds for all replicas
together. Where there is one replica, the ledger is in it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError

from ray_jobs.serving.keys import ApiKey
from ray_jobs.serving.problem import Problem

log = logging.getLogger(__name__)

LEASE_S = 0.1  # what a replica takes at once lasts about as long, and is void after ten of these
Take = Callable[[str, float, float, int], Awaitable[tuple[int, float]]]


@dataclass
class Bucket:
    """Token bucket: full at first, refilled at a rate up to a burst."""

    tokens: float
    at_s: float


class Ledger:
    """What is left of each key's limit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.buckets: dict[str, Bucket] = {}

    def take(self, key: str, per_second: float, burst: float, wanted: int) -> tuple[int, float]:
        """As many whole tokens as there are of those wanted; else 0, and seconds until one is."""
        now = self.clock()
        bucket = self.buckets.setdefault(key, Bucket(burst, now))
        bucket.tokens = min(burst, bucket.tokens + per_second * (now - bucket.at_s))
        bucket.at_s = now
        granted = min(wanted, int(bucket.tokens))
        bucket.tokens -= granted
        return granted, 0.0 if granted else (1 - bucket.tokens) / per_second


@dataclass
class Lease:
    """What a replica holds of one key's limit."""

    tokens: int = 0
    until_s: float = 0.0  # after which the tokens are void
    refused_until_s: float = 0.0  # before which there is no need to ask
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Limits:
    """One replica's spending."""

    def __init__(self, take: Take, clock: Callable[[], float] = time.monotonic) -> None:
        self.take = take
        self.clock = clock
        self.leases: dict[str, Lease] = {}

    async def spend(self, key: ApiKey) -> None:
        """Count one request of a key; raises Problem (429) where its limit is reached."""
        if not key.per_second:
            return
        lease = self.leases.setdefault(key.id, Lease())
        if self._spent(lease):
            return
        async with lease.asking:
            # Whoever waited with us may have asked for us too.
            if not self._spent(lease):
                await self._ask(key, lease)
                if not self._spent(lease):
                    raise _refusal(key, lease.refused_until_s - self.clock())

    def _spent(self, lease: Lease) -> bool:
        if lease.tokens <= 0 or self.clock() >= lease.until_s:
            return False
        lease.tokens -= 1
        return True

    async def _ask(self, key: ApiKey, lease: Lease) -> None:
        if self.clock() < lease.refused_until_s:
            return
        wanted = max(1, int(key.per_second * LEASE_S))
        lease.tokens, wait_s = await self.take(key.id, key.per_second, key.burst, wanted)
        now = self.clock()
        lease.until_s, lease.refused_until_s = now + 10 * LEASE_S, now + wait_s


def alone() -> Limits:
    """The limits of a service that has one replica."""
    ledger = Ledger()

    async def take(key: str, per_second: float, burst: float, wanted: int) -> tuple[int, float]:
        return ledger.take(key, per_second, burst, wanted)

    return Limits(take)


def shared(service: str) -> Limits:
    """The limits of a service whose replicas spend together, by an actor on their Ray.

    While the actor is away each replica keeps to the limit by itself.
    """
    fallback = Ledger()
    found: list[Any] = []  # the actor, looked up once

    async def take(key: str, per_second: float, burst: float, wanted: int) -> tuple[int, float]:
        try:
            if not found:
                found.append(await asyncio.to_thread(_actor, service))
            granted: tuple[int, float] = await found[0].take.remote(key, per_second, burst, wanted)
        except RayError as error:
            log.warning("limits of %s are kept by each replica alone: %s", service, error)
            found.clear()
            return fallback.take(key, per_second, burst, wanted)
        return granted

    return Limits(take)


def _actor(service: str) -> Any:
    import ray

    return (
        ray.remote(Ledger)
        .options(
            name=f"limits-{service}",
            namespace="lyceum",
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
        )
        .remote()
    )


def _refusal(key: ApiKey, wait_s: float) -> Problem:
    seconds = max(1, math.ceil(wait_s))
    return Problem(
        429,
        f"key {key.id} may ask {key.per_second:g} times a second; ask again in {seconds} s",
        headers=((b"retry-after", str(seconds).encode()),),
    )
