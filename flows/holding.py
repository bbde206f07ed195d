"""What a run holds while it lasts: its turn on the home, and a Ray once it is needed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property

from flows.platform import embedded
from flows.platform.locks import held, lock
from ray_jobs.cluster import Cluster, joined
from tasks.run import Run

log = logging.getLogger(__name__)


def alone(run: Run, part: str) -> AbstractContextManager[None]:
    """Hold a part of a service, so that no other run or promotion on this home meddles."""
    service = run.recipe.service
    path = lock(run.settings, service, part)
    return held(path, f"another run of {service}", lambda who: log.info("%s: %s", service, who))


class Ray:
    """The run's Ray, joined when it is first needed and left when the run ends."""

    def __init__(self, run: Run):
        self._run = run
        self._stack = contextlib.ExitStack()

    @cached_property
    def cluster(self) -> Cluster:
        """Join the platform's Ray, or start one that nothing of outlives this run."""
        here = self._run.settings
        if here.ray_address:
            return self._stack.enter_context(joined(here))
        own = self._stack.enter_context(embedded(here))
        self._stack.enter_context(surrounded(own.environment))
        return self._stack.enter_context(joined(here, folder=own.ray_temp, port=own.http_port))

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def surrounded(values: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in the environment for the block, and what was there after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
