"""The command line: `lyceum`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    from flows.cli.app import app
    from flows.cli.console import fail
    from ray_jobs.errors import LyceumError

    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(arguments)
    except LyceumError as error:
        if debug:
            raise
        fail(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        fail("interrupted; run the same command again and it goes on where it was")
        sys.exit(130)
