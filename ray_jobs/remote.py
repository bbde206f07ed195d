"""Any place by its URL: how it is reached, and what is said where it cannot be.

The one module that sets up object storage, for whatever library reads from it.
Addresses and credentials are those of the storage's own tools: of S3,
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE and the rest.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import fsspec

from ray_jobs.errors import AwayError, RemoteError, UsageError

log = logging.getLogger(__name__)

Made = TypeVar("Made")
Asked = ParamSpec("Asked")
S3 = ("s3://", "s3a://")
PATIENCE_S = 180.0  # how long work that took hours waits for a storage that went away
_process = {"patience_s": 0.0}  # of all that it asks; see `patience`
PAUSE_S = 2.0
BLOCK_BYTES = 5 << 20  # read ahead of what was asked for, and written at once: S3's least
# A server that is there and says nothing is asked 2 * 2 times: half a minute in all.
TRIES = 2  # of s3fs, which knows of bodies that broke off, around botocore's
S3_CONFIG: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 7,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}


def is_s3(uri: str) -> bool:
    return uri.startswith(S3)


def file_system(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, and the path there; raises UsageError for an unknown one.

    It remembers no listing: another process may have written since.
    """
    options: dict[str, Any] = {}
    if is_s3(uri):
        if not _bucket(uri):
            raise UsageError(f"{uri} names no bucket; expected s3://BUCKET/PATH")
        options = {"config_kwargs": S3_CONFIG, "default_block_size": BLOCK_BYTES}
    if "://" in uri:
        options["use_listings_cache"] = False
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options)
        if is_s3(uri):
            fs.retries = TRIES
            with told(uri):
                fs.connect()  # to no server yet: it reads profile and address
    except ImportError as error:
        remedy = "pip install 'lyceum[s3]'" if is_s3(uri) else "install what it names"
        raise UsageError(f"{uri}: {error}; {remedy}") from error
    except ValueError as error:
        raise UsageError(f"{uri}: {error}") from error
    return fs, path


@contextmanager
def opened(uri: str, *, ahead_bytes: int = BLOCK_BYTES) -> Iterator[Any]:
    """A file to read and to jump about in; raises OSError as a disk does, or RemoteError."""
    fs, path = file_system(uri)
    with told(uri), fs.open(path, "rb", block_size=ahead_bytes) as file:
        yield file


def exists(uri: str) -> bool:
    """Whether a file or a folder is there; raises RemoteError where that cannot be known."""
    fs, path = file_system(uri)
    with told(uri):
        if fs.exists(path):
            return True
        if is_s3(uri):
            _refuse_missing(uri, fs)
    return False


def _refuse_missing(uri: str, fs: Any) -> None:
    """A bucket that is not there holds nothing, but that is not what was meant."""
    try:
        fs.call_s3("head_bucket", Bucket=_bucket(uri))
    except FileNotFoundError as error:
        raise RemoteError(_no_bucket(uri)) from error


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Say of object storage that it is away, refuses us or has no such bucket: as RemoteError.

    A file that is not there stays a FileNotFoundError.
    """
    try:
        yield
    except _faults(uri) as error:
        if reason := _reason(uri, error):
            kind = AwayError if _is_away(error) else RemoteError
            raise kind(reason) from error
        raise


def patiently(work: Callable[[], Made], *, limit_s: float = PATIENCE_S) -> Made:
    """Do it, and again while the storage is away; raises AwayError where it stays away."""
    until = time.monotonic() + limit_s
    while True:
        try:
            return work()
        except AwayError as error:
            if time.monotonic() >= until:
                raise
            log.warning("%s; trying again", error)
            time.sleep(PAUSE_S)


@contextmanager
def patience(limit_s: float = PATIENCE_S) -> Iterator[None]:
    """While this lasts, whatever `waits` in this process does so for a storage that went away.

    In all its threads: it is for processes that do one long work, such as a worker's.
    """
    before = _process["patience_s"]
    _process["patience_s"] = limit_s
    try:
        yield
    finally:
        _process["patience_s"] = before


def waits(ask: Callable[Asked, Made]) -> Callable[Asked, Made]:
    """Mark what asks the storage and may as well ask twice: with `patience` it is asked again."""

    @wraps(ask)
    def asked(*args: Asked.args, **kwargs: Asked.kwargs) -> Made:
        return patiently(lambda: ask(*args, **kwargs), limit_s=_process["patience_s"])

    return asked


def _faults(uri: str) -> tuple[type[Exception], ...]:
    """What its libraries raise; they are imported where a URL needs them."""
    if not is_s3(uri):
        return ()
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError

    return OSError, ClientError, BotoCoreError


def _is_away(error: Exception) -> bool:
    """Whether nobody answered, or one who could not do it for now."""
    from aiohttp import ClientError
    from botocore import exceptions as aws

    answer = getattr(error.__cause__, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    nobody = (TimeoutError, ClientError, aws.ConnectionError, aws.HTTPClientError)
    return isinstance(error, nobody) or status >= 500


def _reason(uri: str, error: Exception) -> str:
    """Why the storage, rather than a file on it, cannot be had; empty where it can."""
    from aiohttp import ClientError
    from botocore import exceptions as aws

    unknown = (
        PermissionError, aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound,
        aws.CredentialRetrievalError,
    )  # fmt: skip
    away = (TimeoutError, ClientError, aws.ConnectionError, aws.HTTPClientError)
    if isinstance(error, unknown):
        return (
            f"{uri}: {_server()} does not let us in: {error}; give AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, of somebody who may read and write there"
        )
    if isinstance(error, away):
        return (
            f"{uri}: {_server()} does not answer: {error}; start it, or name another with "
            "AWS_ENDPOINT_URL"
        )
    answer = getattr(error.__cause__, "response", None)
    if isinstance(error, FileNotFoundError):
        missing = answer is not None and answer["Error"].get("Code") == "NoSuchBucket"
        return _no_bucket(uri) if missing else ""
    if isinstance(error, OSError):
        failed = f"{uri}: {_server()} could not do it: {error}; see to it, and run again"
        return failed if answer is not None else ""
    return f"{uri}: {' '.join(str(error).split())}; see to the URL, and to AWS_ENDPOINT_URL"


def _no_bucket(uri: str) -> str:
    return f"{uri}: there is no bucket {_bucket(uri)} at {_server()}; make it, or name another"


def _bucket(uri: str) -> str:
    return uri.split("/")[2]


def _server() -> str:
    """Who is asked, as far as the environment tells."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return named or "the S3 of AWS"
