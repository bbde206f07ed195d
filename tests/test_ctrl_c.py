"""A terminal's Ctrl-C reaches all that was started in it: a Ray of one's own has to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ray_jobs.training.local import shielded_from_ctrl_c

CODE = textwrap.dedent("""
    import os, signal, time
    from flows.platform import embedded
    from ray_jobs import settings as installation
    from ray_jobs.cluster import joined

    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell had us ignore
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


@pytest.fixture
def _heard() -> Iterator[None]:
    """Ctrl-C as a terminal has it, whatever a shell had this process ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_what_starts_outside_the_shield_can_be_interrupted() -> None:
    with shielded_from_ctrl_c(), asleep() as deaf:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "we are not"
        deaf.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert deaf.poll() is None
    with asleep() as hears:
        hears.send_signal(signal.SIGINT)
        assert hears.wait(20) == -signal.SIGINT


@contextmanager
def asleep() -> Iterator[subprocess.Popen[bytes]]:
    """A process with something to run before, as Ray starts its own."""
    with subprocess.Popen(["sleep", "60"], preexec_fn=lambda: None) as process:  # noqa: PLW1509
        try:
            yield process
        finally:
            process.kill()
