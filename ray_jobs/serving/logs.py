"""The log of a replica: lines of JSON where Serve writes its own, without words of a request.

What an exception says may quote a learner, so its kind and its place stand there alone.
"""

from __future__ import annotations

import logging
import traceback
from logging.handlers import MemoryHandler
from pathlib import Path

from ray.serve._private.constants import SERVE_LOGGER_NAME

from ray_jobs.serving.release import Release

OURS = "ray_jobs"


class Told(logging.Filter):
    """Says of which version a line is, and of an exception what it was and where."""

    def __init__(self, release: Release):
        super().__init__()
        self.stamp = {
            "service": release.service,
            "version": release.version,
            "lineage": release.lineage,
        }

    def filter(self, record: logging.LogRecord) -> bool:
        record.__dict__.update(self.stamp)
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            record.fault = type(error).__name__
            record.at = _places(error)
            record.exc_info = record.exc_text = None
        return True


def structured(release: Release) -> None:
    """Have our loggers write to the replica's file in Ray's logs, which adds a request's id."""
    handlers = logging.getLogger(SERVE_LOGGER_NAME).handlers
    told = Told(release)
    for handler in handlers:
        handler.addFilter(told)
        if isinstance(handler, MemoryHandler):
            # Serve would keep a thousand lines before it writes one. Without a log of requests
            # there are few, and those of a replica that is killed are wanted most.
            handler.capacity = 1
    ours = logging.getLogger(OURS)
    ours.handlers, ours.propagate = list(handlers), False
    ours.setLevel(logging.INFO)


def _places(error: BaseException) -> list[str]:
    """File, line and function of each step, the innermost last."""
    steps = traceback.walk_tb(error.__traceback__)
    return [f"{Path(f.f_code.co_filename).name}:{line} {f.f_code.co_name}" for f, line in steps]
