"""The client of a service for code that waits: `with Client(url) as client`.

One may be shared by threads; its connections are kept open between calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, overload

import httpx

from ray_jobs.client.answers import Answer, Card, Feedback
from ray_jobs.client.calls import LIMITS, A, Calls, Fields, Heard, Pause, Send, Steps, T, headers


class Client:
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._calls = Calls(url, timeout_s=timeout_s, clock=clock)
        self._sleep = sleep
        self._http = httpx.Client(headers=headers(key), limits=LIMITS)

    @overload
    def call(self, verb: str, request: Fields, *, explain: bool = False) -> Answer: ...
    @overload
    def call(self, verb: str, request: Fields, *, explain: bool = False, answer: type[A]) -> A: ...
    def call(
        self, verb: str, request: Fields, *, explain: bool = False, answer: type[Any] = Answer
    ) -> Any:
        """The answer of `v1/<verb>` to one request, as the model of it that is given."""
        return self._run(self._calls.call(verb, request, explain=explain, answer=answer))

    @overload
    def call_many(
        self, verb: str, requests: Iterable[Fields], *, explain: bool = False
    ) -> list[Answer]: ...
    @overload
    def call_many(
        self, verb: str, requests: Iterable[Fields], *, explain: bool = False, answer: type[A]
    ) -> list[A]: ...
    def call_many(
        self,
        verb: str,
        requests: Iterable[Fields],
        *,
        explain: bool = False,
        answer: type[Any] = Answer,
    ) -> list[Any]:
        """An answer to each request, in their order; sent in as few pieces as it takes."""
        return self._run(self._calls.call_many(verb, requests, explain=explain, answer=answer))

    def predict(self, *, explain: bool = False, **fields: Any) -> Answer:
        """The answer of `v1/predict` to a request of these fields."""
        return self.call("predict", fields, explain=explain)

    def feedback(
        self,
        prediction_id: str | None,
        outcomes: Sequence[float | str | None],
        *,
        time_s: float | None = None,
    ) -> int:
        """Tell what really happened, for each prediction of an answer; how many are kept.

        It is on the store when this returns, and told twice it counts once.
        """
        return self._run(self._calls.feedback(Feedback(prediction_id, outcomes, time_s)))

    def feedback_many(self, told: Iterable[Feedback]) -> int:
        """Tell what really happened after many answers; how many outcomes are kept.

        After an error, tell all again: what was kept already counts once.
        """
        return self._run(self._calls.feedback_many(told))

    def card(self) -> Card:
        """The model card: which version serves, its data, figures and schemas."""
        return self._run(self._calls.card())

    def ready(self) -> bool:
        """Whether the service answers rightly at this moment; asked once, without a retry."""
        return self._run(self._calls.ready())

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._calls.url!r})"

    def _run(self, steps: Steps[T]) -> T:
        heard: Heard = None
        while True:
            try:
                step = steps.send(heard)
            except StopIteration as end:
                answer: T = end.value
                return answer
            heard = self._taken(step)

    def _taken(self, step: Send | Pause) -> Heard:
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return None
        try:
            return self._http.request(
                step.method,
                step.url,
                content=step.content,
                headers=step.headers,
                timeout=step.timeout,
            )
        except httpx.RequestError as error:
            return error
