"""Prefect's server for one command, where no platform is up: begun first, ended last.

Prefect would start the same server with the first flow, and then there is
nothing to do but wait for it; here a command imports its flow meanwhile.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from flows.platform import ports
from flows.platform.components import answers
from flows.platform.environment import LOOPBACK, logs_folder
from flows.platform.processes import stop
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings

START_LIMIT_S = 120.0
POLL_S = 0.05
GRACE_S = 3.0
APP = "prefect.server.api.server:create_app"
# As Prefect runs a server that it starts itself: no pages, and no services for schedules.
TEMPORARY = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}


def begin_prefect(settings: Settings) -> Callable[[], None]:
    """Start Prefect's server unless one is named; call what is returned before the first flow.

    To be called before Prefect is imported, which reads its address from the
    environment then, and whose last words at exit still reach the server. That call
    raises PlatformError where the server does not answer.
    """
    if os.environ.get("PREFECT_API_URL"):
        return lambda: None
    port = ports.any_free(LOOPBACK)
    url = f"http://{LOOPBACK}:{port}/api"
    words = ["--factory", APP, "--host", LOOPBACK, "--port", str(port), "--log-level", "error"]
    log = logs_folder(settings.home) / "prefect-of-runs.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as told:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *words, "--timeout-graceful-shutdown", "1"],
            env={**os.environ, **TEMPORARY},
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            start_new_session=True,  # it hears of a Ctrl-C from us, once the flow is told
        )
    atexit.register(_end, server)
    # Its pages end with it, so that no link leads there.
    os.environ.update({"PREFECT_API_URL": url, "PREFECT_UI_URL": ""})

    def ready() -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not answers(f"{url}/health"):
            ended = server.poll() is not None
            if ended or time.monotonic() > deadline:
                how = f"ended with status {server.returncode}" if ended else "does not answer"
                raise PlatformError(f"Prefect's server for this command {how}; see {log}")
            time.sleep(POLL_S)

    return ready


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        stop([psutil.Process(server.pid)], GRACE_S)
