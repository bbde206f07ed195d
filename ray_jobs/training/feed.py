"""Batches made ahead of the step that needs them, in their order, by threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Asked = TypeVar("Asked")
Made = TypeVar("Made")


def ahead(
    make: Callable[[Asked], Made], asked: Iterable[Asked], *, depth: int = 2
) -> Iterator[Made]:
    """What is made of each, in their order, up to `depth` of them before they are taken.

    What `make` raises is raised where its result would have come.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for one in asked:
                waiting.append(pool.submit(make, one))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
