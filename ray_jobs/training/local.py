"""Starting a Ray of one's own on a machine where another may be running already.

A Ray takes jobs through an agent on a fixed port, which `ray.init` offers no
way to change: a second Ray's agent finds it taken, and every job is refused.
"""

from __future__ import annotations

import contextlib
import functools
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
