"""A terminal's Ctrl-C reaches all that was started in it: a Ray of one's own has to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ray_jobs.training.local import shielded_from_ctrl_c

CODE = textwrap.dedent("""
    import os, time
    from flows.platform import embedded
    from ray_jobs import settings as installation
    from ray_jobs.cluster import joined

    here = installation.read()
    with embedded(here) as own:
        os.environ.update(own.environment)
        with joined(here, folder=own.ray_temp, port=own.http_port) as cluster:
            from ray.job_submission import JobSubmissionClient

            jobs = JobSubmissionClient(cluster.dashboard)
            assert jobs.list_jobs() and cluster.services
            try:
                print("up", flush=True)
                time.sleep(300)
            except KeyboardInterrupt:
                time.sleep(1)  # whoever was hit as well is gone by now
                print(len(jobs.list_jobs()), flush=True)
""")


@pytest.mark.ray
def test_who_is_interrupted_can_still_ask_for_the_jobs_to_stop(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE],
        env={**os.environ, "LYCEUM_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal starts it: a group of its own
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            os.killpg(process.pid, signal.SIGINT)
            assert process.communicate(timeout=60)[0] == "1\n"
            assert process.returncode == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_what_starts_outside_the_shield_can_be_interrupted() -> None:
    def started() -> subprocess.Popen[bytes]:
        # With something to run before, as Ray starts its processes.
        return subprocess.Popen(["sleep", "60"], preexec_fn=lambda: None)  # noqa: PLW1509

    with shielded_from_ctrl_c():
        deaf = started()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "we are not"
    hears = started()
    try:
        for process in (deaf, hears):
            process.send_signal(signal.SIGINT)
        assert hears.wait(20) == -signal.SIGINT
        time.sleep(0.2)
        assert deaf.poll() is None
    finally:
        deaf.kill()
        deaf.wait()
