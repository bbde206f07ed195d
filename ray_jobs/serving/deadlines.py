"""Deadlines of requests, looked after by one task: a timer for each costs more than it guards."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ray_jobs.serving.problem import Problem

PERIOD_S = 0.25  # a deadline is kept this late at most
BODY_S = 20.0  # for a body to arrive
ANSWER_S = 60.0  # for an answer to it


@dataclass(slots=True, eq=False)
class Deadline:
    """Until when one request may take."""

    task: asyncio.Task[object]
    until_s: float
    arrived: bool = True  # nothing more of it is awaited
    passed: bool = False

    def awaits_body(self) -> None:
        """From now on it is the client who must be in time."""
        self.arrived, self.until_s = False, time.monotonic() + BODY_S

    def has_arrived(self) -> None:
        """The body is there: now it is us who must be in time."""
        self.arrived, self.until_s = True, time.monotonic() + ANSWER_S

    def problem(self) -> Problem:
        """What a client is told that came too late, or whom we kept waiting."""
        if self.arrived:
            detail = f"no answer within {ANSWER_S:g} s; ask again, or for less"
            return Problem(503, detail, headers=((b"retry-after", b"5"),))
        detail = f"the body did not arrive within {BODY_S:g} s; send it at once, or in parts"
        return Problem(408, detail)


class Deadlines:
    """The requests under way."""

    def __init__(self) -> None:
        self.under_way: set[Deadline] = set()
        self.watch: asyncio.Task[None] | None = None

    def begin(self) -> Deadline:
        """Have this task cancelled, and `passed` set, where it takes longer."""
        task = asyncio.current_task()
        assert task is not None
        deadline = Deadline(task, time.monotonic() + ANSWER_S)
        self.under_way.add(deadline)
        loop = task.get_loop()
        if self.watch is None or self.watch.done() or self.watch.get_loop() is not loop:
            self.watch = loop.create_task(self._watch())
        return deadline

    def end(self, deadline: Deadline) -> None:
        """It is through."""
        self.under_way.discard(deadline)

    async def _watch(self) -> None:
        while self.under_way:
            await asyncio.sleep(PERIOD_S)
            now = time.monotonic()
            for one in list(self.under_way):
                if now > one.until_s and not one.passed:
                    one.passed = True
                    one.task.cancel()
