"""Starting a Ray of one's own: beside another on the same machine, and below a terminal.

A Ray takes jobs through an agent on a fixed port, which `ray.init` offers no
way to change: a second Ray's agent finds it taken, and every job is refused.

A terminal's Ctrl-C goes to all that was started in it. Ray's dashboard would lose
the process that answers for jobs, and whoever asks it to stop one would wait for ever.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def agent_on_any_port() -> Iterator[None]:
    """Within the block, `ray.init` starts its job agent on whatever port is free."""
    from ray._private import parameter

    usual = parameter.RayParams
    parameter.RayParams = functools.partial(usual, dashboard_agent_listen_port=0)  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        parameter.RayParams = usual  # type: ignore[misc]


@contextlib.contextmanager
def shielded_from_ctrl_c() -> Iterator[None]:
    """Whatever is started within the block, and what that starts, ignores SIGINT; we do not."""
    _register()
    _shielding.set()
    try:
        yield
    finally:
        _shielding.clear()


_shielding = threading.Event()


@functools.cache
def _register() -> None:
    """Once, since what is called in a child cannot be taken back."""
    os.register_at_fork(after_in_child=_ignore_ctrl_c)


def _ignore_ctrl_c() -> None:
    if _shielding.is_set():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
