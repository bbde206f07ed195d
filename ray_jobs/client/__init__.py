"""The Python client of a service, sync and async: `from ray_jobs.client import Client`.

It needs httpx and pydantic alone, so that who only asks installs neither torch nor Ray.
"""

from ray_jobs.client.answers import Answer, Card, Feedback
from ray_jobs.client.asynchronous import AsyncClient
from ray_jobs.client.errors import (
    AnotherVersion,
    Forbidden,
    InvalidRequest,
    LyceumApiError,
    NoSuchService,
    NotFound,
    RateLimited,
    ServerFault,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Wrong,
)
from ray_jobs.client.sync import Client

__all__ = [
    "AnotherVersion",
    "Answer",
    "AsyncClient",
    "Card",
    "Client",
    "Feedback",
    "Forbidden",
    "InvalidRequest",
    "LyceumApiError",
    "NoSuchService",
    "NotFound",
    "RateLimited",
    "ServerFault",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Wrong",
]
