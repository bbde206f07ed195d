"""The command line: `lyceum`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import signal
import sys
from types import FrameType


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; not KeyboardInterrupt, of which Typer would only say "Aborted!"."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def main() -> None:
    """Run the command line; 0 done, 1 failed, 2 bad usage, 128 and more by a signal."""
    from flows.cli.app import app
    from flows.cli.console import fail

    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app(arguments)
    except Interrupted as error:
        fail("interrupted; run the same command again and it goes on where it was")
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        message, status = told(error)
        fail(message)
        sys.exit(status)


def told(error: Exception) -> tuple[str, int]:
    """What a person reads of an error, and the exit status."""
    from ray_jobs.errors import LyceumError

    if isinstance(error, LyceumError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"{error}; mend that and run the same command again, it goes on where it was", 1
    return f"this is our fault, {type(error).__name__}: {error} (--debug shows where)", 1


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)
