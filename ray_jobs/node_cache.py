"""What a node keeps on its own disk: one makes it while the others wait; unused, it goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ray_jobs.errors import StoreError

LOCK = "lock"  # of a whole cache; it stays, or two would each hold one of their own
STALE_S = 24 * 3600  # of what nobody has opened since


def kept(
    within: Path,
    key: str,
    make: Callable[[Path], object],
    *,
    what: str,
    still_good: Callable[[Path], bool] = lambda _: True,
) -> Path:
    """The folder of a key, whole: the first who asks has `make` fill it, the others wait.

    One that is not `still_good` is made anew. Raises StoreError where the disk refuses,
    naming `what` cannot be kept.
    """
    folder = within / key
    try:
        within.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(within / LOCK):
            if folder.exists() and not still_good(folder):
                shutil.rmtree(folder)
            if not folder.exists():
                _remove_stale(within)
                whole(folder, make)
            os.utime(folder)
    except OSError as error:
        raise StoreError(
            f"{what} cannot be kept in {within}: {error}; make room there, or name another "
            "folder with LYCEUM_HOME"
        ) from error
    return folder


def whole(folder: Path, make: Callable[[Path], object]) -> None:
    """Have `make` fill a folder that is there whole or not at all."""
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700, parents=True)
    make(half)
    half.rename(folder)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_stale(within: Path) -> None:
    limit = time.time() - STALE_S
    for folder in within.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another worker may have been first
            if folder.is_dir() and folder.stat().st_mtime < limit:
                shutil.rmtree(folder, ignore_errors=True)
