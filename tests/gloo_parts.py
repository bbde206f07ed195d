"""How a worker of a test leaves a group that gloo joins, and its process, without an abort."""

from __future__ import annotations

import os
from typing import NoReturn

from torch import distributed


def leave() -> None:
    """Out of the group, together: gloo aborts whoever talks to one that has left."""
    distributed.barrier()
    distributed.destroy_process_group()


def finish() -> NoReturn:
    """End a worker that has done its work.

    At once: gloo's threads may still let go of tensors, and abort a process whose interpreter
    is being taken down, about once in twenty times.
    """
    os._exit(0)
