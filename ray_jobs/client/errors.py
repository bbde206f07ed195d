# ruff: noqa: N818 - what happened names them best
"""What a call may end with: one tree, each class another thing for the caller to do.

Messages say what, where, and what to do, with the request's id; never the key.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from ray_jobs.errors import LyceumError

PROBLEM = "application/problem+json"
INSTANCE = re.compile(r"^/instances/(\d+)")


class Wrong(BaseModel):
    """One thing that is wrong with a request, and a JSON pointer to where in it."""

    model_config = ConfigDict(frozen=True)

    pointer: str
    detail: str


@dataclass(frozen=True)
class Asked:
    """What was asked, for messages."""

    method: str
    url: str
    request_id: str

    def message(self, what: str) -> str:
        return f"{self.method} {self.url}: {what} (request {self.request_id})"


class LyceumApiError(LyceumError):
    """A call without the answer it asked for."""

    advice = "this is not an answer of a service; check the URL"  # where the server gives none
    retryable = False  # asked again as it is, it may be answered

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
        errors: Sequence[Wrong] = (),
    ) -> None:
        super().__init__(message)
        self.status = status  # None: there was no answer at all
        self.request_id = request_id
        self.retry_after_s = retry_after_s  # as the server asks for
        self.errors = tuple(errors)


class InvalidRequest(LyceumApiError):
    """The request does not fit the service; `errors` says where."""

    advice = "the request does not fit; see openapi.json of the service"


class TooLarge(InvalidRequest):
    """One request is more than a service takes at once."""

    advice = "the request is too large; send it in parts"


class Unauthorized(LyceumApiError):
    """The key is none, or no longer."""

    advice = "the key is not valid here; lyceum keys create makes one"


class Forbidden(LyceumApiError):
    """The key is valid, but not for this."""

    advice = "the key does not allow this; lyceum keys create makes keys for other actions"


class NotFound(LyceumApiError):
    """No such service, or no such verb of it."""

    advice = "there is no such service, or no such verb of it; check the URL"


class NoSuchService(NotFound):
    """The proxy knows no such service; for some seconds after its own start it knows none."""

    advice = "there is no such service, or not yet; check the URL, or ask again later"
    retryable = True


class AnotherVersion(LyceumApiError):
    """The state token is another version's: send the history, and ask for a new token."""

    advice = "the state is of another version; send the history and ask for a new state"


class RateLimited(LyceumApiError):
    """The key's limit is reached, for longer than the call may take."""

    advice = "too many requests; ask less often"
    retryable = True


class Unavailable(LyceumApiError):
    """Nobody answered within the time; a later call may be."""

    advice = "the service does not answer just now; ask again later"
    retryable = True


class ServerFault(LyceumApiError):
    """The service has failed on this request, which is not the caller's fault."""

    advice = "the service has failed; its log says more"


class UnexpectedAnswer(LyceumApiError):
    """The answer is not JSON, or not what the model of it says."""


KINDS: dict[int, type[LyceumApiError]] = {
    **dict.fromkeys((400, 405, 415, 422), InvalidRequest),
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: AnotherVersion,
    413: TooLarge,
    429: RateLimited,
    500: ServerFault,
    **dict.fromkeys((502, 503, 504), Unavailable),
}
# Of a proxy that has no replica just now; a service's own fault comes as a problem.
PLAIN = KINDS | {404: NoSuchService, 500: Unavailable}


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    title: str = ""
    detail: str = ""
    errors: list[Wrong] = []


def refused(response: httpx.Response, asked: Asked, *, first: int = 0) -> LyceumApiError:
    """The error that an answer other than 2xx stands for.

    Places in a piece of a longer list, which begins with number `first` of it, become
    places in the list.
    """
    problem = _problem(response)
    kind = (KINDS if problem else PLAIN).get(response.status_code, UnexpectedAnswer)
    told = problem or Problem()
    what = f"{response.status_code} {told.title}".strip()
    return kind(
        asked.message(f"{what}: {_placed(told.detail, first) or kind.advice}"),
        status=response.status_code,
        request_id=asked.request_id,
        retry_after_s=_retry_after_s(response),
        errors=[
            Wrong(pointer=_placed(one.pointer, first), detail=one.detail) for one in told.errors
        ],
    )


def unheard(error: httpx.RequestError, asked: Asked) -> LyceumApiError:
    """The error that stands for no answer: refused, reset, cut, or too late."""
    what = str(error) or type(error).__name__
    if _untrusted(error):
        advice = "this machine does not trust its certificate; SSL_CERT_FILE may name one to trust"
        return UnexpectedAnswer(asked.message(f"{what}: {advice}"), request_id=asked.request_id)
    message = asked.message(f"no answer ({what}): {Unavailable.advice}")
    return Unavailable(message, request_id=asked.request_id)


def _problem(response: httpx.Response) -> Problem | None:
    if response.headers.get("content-type", "").partition(";")[0].strip() != PROBLEM:
        return None
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:  # it says so, but is none
        return None


def _placed(text: str, first: int) -> str:
    return INSTANCE.sub(lambda found: f"/instances/{int(found[1]) + first}", text)


def _retry_after_s(response: httpx.Response) -> float | None:
    """The hint; None where there is none, or a date, which our servers do not send."""
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdecimal() else None


def _untrusted(error: BaseException | None) -> bool:
    """Whether a certificate is at the root of it, which no time will mend."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
