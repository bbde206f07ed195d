"""The one tree of errors that are the user's to mend.

Each message says what is, what was expected, where, and the way out; the
command line prints it without a traceback. Our own faults stay assertions.
"""


class LyceumError(Exception):
    """Something the caller can mend; `str(error)` is the whole message."""

    exit_code = 1


class UsageError(LyceumError):
    """The request itself is wrong: an unknown name, a misspelt setting."""

    exit_code = 2


class ContractError(LyceumError):
    """Data does not keep the contract of its table."""


class StoreError(LyceumError):
    """The store holds something that cannot be read, or cannot be written."""


class RemoteError(LyceumError):
    """Object storage does not answer, does not let us in, or has no such bucket."""


class AwayError(RemoteError):
    """Object storage does not answer just now; it may in a moment."""


class ArtifactError(StoreError):
    """A model artifact is missing, damaged, or of another version."""


class TrainingError(LyceumError):
    """Training ended without a model."""


class ServiceError(LyceumError):
    """A service could not be published, or does not answer."""


class PlatformError(LyceumError):
    """A process of the platform did not start, or does not answer."""
