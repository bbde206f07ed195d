"""Starts Serve on a platform's Ray: `python -m flows.platform.serve_start HOST PORT`.

A process of its own, since Ray reads its environment once and belongs to one
cluster; it imports while the head still starts.
"""

from __future__ import annotations

import os
import socket
import sys
import time

START_LIMIT_S = 90.0


def main() -> None:
    import ray

    from ray_jobs.serving import deploy

    _await_listening(os.environ["RAY_ADDRESS"])
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    deploy.start(sys.argv[1], int(sys.argv[2]))


def _await_listening(address: str) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            # Ray itself waits long before it tries again, so it is asked only now.
            assert time.monotonic() < deadline, f"nothing listens on {address}"
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
