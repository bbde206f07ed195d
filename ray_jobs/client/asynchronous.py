"""The client of a service for asyncio: `async with AsyncClient(url) as client`.

The same surface as the sync one; many calls may be under way at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, overload

import httpx

from ray_jobs.client.answers import Answer, Card, Feedback
from ray_jobs.client.calls import LIMITS, A, Calls, Fields, Heard, Pause, Send, Steps, T, headers


class AsyncClient:
    """A service at `http://host:8000/SERVICE`, asked with a key.

    A call that finds nobody there, or is told to wait, is made again until
    `timeout_s` has passed; of a list, that holds for each piece of up to 10,000.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._calls = Calls(url, timeout_s=timeout_s, clock=clock)
        self._sleep = sleep
        self._http = httpx.AsyncClient(headers=headers(key), limits=LIMITS)

    @overload
    async def call(self, verb: str, request: Fields, *, explain: bool = False) -> Answer: ...
    @overload
    async def call(
        self, verb: str, request: Fields, *, explain: bool = False, answer: type[A]
    ) -> A: ...
    async def call(
        self, verb: str, request: Fields, *, explain: bool = False, answer: type[Any] = Answer
    ) -> Any:
        """The answer of `v1/<verb>` to one request, as the model of it that is given."""
        return await self._run(self._calls.call(verb, request, explain=explain, answer=answer))

    @overload
    async def call_many(
        self, verb: str, requests: Iterable[Fields], *, explain: bool = False
    ) -> list[Answer]: ...
    @overload
    async def call_many(
        self, verb: str, requests: Iterable[Fields], *, explain: bool = False, answer: type[A]
    ) -> list[A]: ...
    async def call_many(
        self,
        verb: str,
        requests: Iterable[Fields],
        *,
        explain: bool = False,
        answer: type[Any] = Answer,
    ) -> list[Any]:
        """An answer to each request, in their order; sent in as few pieces as it takes."""
        calls = self._calls.call_many(verb, requests, explain=explain, answer=answer)
        return await self._run(calls)

    async def predict(self, *, explain: bool = False, **fields: Any) -> Answer:
        """The answer of `v1/predict` to a request of these fields."""
        return await self.call("predict", fields, explain=explain)

    async def feedback(
        self,
        prediction_id: str | None,
        outcomes: Sequence[float | str | None],
        *,
        time_s: float | None = None,
    ) -> int:
        """Tell what really happened, for each prediction of an answer; how many are kept.

        It is on the store when this returns, and told twice it counts once.
        """
        return await self._run(self._calls.feedback(Feedback(prediction_id, outcomes, time_s)))

    async def feedback_many(self, told: Iterable[Feedback]) -> int:
        """Tell what really happened after many answers; how many outcomes are kept.

        After an error, tell all again: what was kept already counts once.
        """
        return await self._run(self._calls.feedback_many(told))

    async def card(self) -> Card:
        """The model card: which version serves, its data, figures and schemas."""
        return await self._run(self._calls.card())

    async def ready(self) -> bool:
        """Whether the service answers rightly at this moment; asked once, without a retry."""
        return await self._run(self._calls.ready())

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._calls.url!r})"

    async def _run(self, steps: Steps[T]) -> T:
        heard: Heard = None
        while True:
            try:
                step = steps.send(heard)
            except StopIteration as end:
                answer: T = end.value
                return answer
            heard = await self._taken(step)

    async def _taken(self, step: Send | Pause) -> Heard:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return None
        try:
            return await self._http.request(
                step.method,
                step.url,
                content=step.content,
                headers=step.headers,
                timeout=step.timeout,
            )
        except httpx.RequestError as error:
            return error
