"""The audit trail: who did what to services, keys and data, and whether it came to be.

A line of JSON per act in `<home>/logs/audit.jsonl`, for its owner alone. What
cannot be written down is not done. No learner is named in it, nor any secret.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from flows.platform.environment import logs_folder
from ray_jobs.errors import LyceumError, PlatformError
from ray_jobs.settings import Settings

RECONCILER = "reconciler"
ROOM = 16 * 1024  # bytes; no line is as long


def trail(settings: Settings) -> Path:
    """Where the lines of an installation stand."""
    return logs_folder(settings.home) / "audit.jsonl"


@contextlib.contextmanager
def record(
    settings: Settings,
    act: str,
    subject: str,
    *,
    who: str = "",
    tried: tuple[type[LyceumError], ...] = (),
    **details: Any,
) -> Iterator[dict[str, Any]]:
    """Do an act in the block, and write down how it ended: `done`, `refused` or `failed`.

    The block may add to the details it is lent. Of a failure that is not the user's
    to mend only the kind is told, since its words may hold anything. What ends with an
    error of `tried` will be done again, and is not told. Raises PlatformError, with
    nothing done yet, where a line could not be written.
    """
    about = {"who": who or _user(), "act": act, "subject": subject}
    path = trail(settings)
    with _opened(path) as descriptor:
        try:
            yield details
        except tried:
            raise
        except LyceumError as error:
            _append(path, descriptor, about | {"outcome": "refused", "reason": str(error)}, details)
            raise
        except BaseException as error:
            reason = type(error).__name__
            _append(path, descriptor, about | {"outcome": "failed", "reason": reason}, details)
            raise
        _append(path, descriptor, about | {"outcome": "done"}, details)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The descriptor of a trail that has room for another line."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.write(bytes(ROOM))
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise PlatformError(
            f"the audit trail {path} cannot be written: {error}; nothing was done. Mend that, "
            "then run the same command again"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _append(path: Path, descriptor: int, about: dict[str, Any], details: dict[str, Any]) -> None:
    """Add one line at once, on the disk when this returns."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = orjson.dumps({"time": now, **details, **about}, option=orjson.OPT_APPEND_NEWLINE)
    try:
        # Of a line that is being written, only a part may be seen.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _torn(descriptor):
            line = b"\n" + line
        written = os.write(descriptor, line)
        os.fsync(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError as error:
        raise _untold(path, about, str(error)) from error
    if written != len(line):
        raise _untold(path, about, "the disk is full")


def _untold(path: Path, about: dict[str, Any], why: str) -> PlatformError:
    return PlatformError(
        f"{about['act']} of {about['subject']} is {about['outcome']}, but the audit trail {path} "
        f"could not be told: {why}"
    )


def _torn(descriptor: int) -> bool:
    """Whether the last line was cut off by a crash or a full disk."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _user() -> str:
    """Who runs this, by the operating system and not by a variable that anybody sets."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
