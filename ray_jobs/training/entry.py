"""The entry of a submitted Ray job and of a terminal alike: a record's URI, and where Ray is.

Exit status 0 when the work is done, or 1 with one clear message, which the job's
events have as well.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ray_jobs import remote
from ray_jobs.errors import LyceumError, PlatformError, UsageError
from ray_jobs.training import events
from ray_jobs.training.local import agent_on_any_port


class Told(Protocol):
    """A record that says where its work tells of itself."""

    @property
    def events(self) -> str: ...


Record = TypeVar("Record", bound=Told)


def enter(
    module: str,
    arguments: Sequence[str] | None,
    load: Callable[[str], Record],
    work: Callable[[Record], object],
) -> int:
    """Do the work of a record on Ray; returns the exit status.

    Without an address RAY_ADDRESS names the cluster; where that is unset too, a
    Ray of its own starts.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if len(given) not in (1, 2):
            raise UsageError(f"usage: python -m {module} JOB_URI [RAY_ADDRESS]")
        address = given[1] if len(given) == 2 else os.environ.get("RAY_ADDRESS")
        with remote.patience():
            _work(load(given[0]), address or "local", work)
    except LyceumError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who called
        return error.exit_code
    return 0


def _work(record: Record, address: str, work: Callable[[Record], object]) -> None:
    """Work, and leave word in the events when it fails, whatever the reason."""
    import ray

    try:
        with agent_on_any_port():
            _join(address)
        work(record)
    except Exception as error:
        events.append(record.events, events.failed(record.events, error))
        raise
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address)
    except ConnectionError as error:
        raise PlatformError(f"no Ray answers at {address}: {error}") from error
