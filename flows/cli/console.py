"""What a person sees of a run: bars and figures on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

LOGGERS = ("flows", "tasks", "ray_jobs")

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False)


def fail(message: str) -> None:
    """Say what went wrong, once."""
    err.print("[bold red]error:[/]", end=" ")
    err.print(message, markup=False, soft_wrap=True)


def say(message: str) -> None:
    """One line, as it is."""
    out.print(message, markup=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[None]:
    """Show the stages of a run until the block ends."""
    if out.is_terminal:
        with _bars() as bars, _listening(Bars(bars)):
            yield
    else:
        with _listening(Lines()):
            yield


def _of_a_job(record: logging.LogRecord) -> bool:
    """A line that a Ray job printed: for the log of the flow, not for whoever waits."""
    return hasattr(record, "of_job")


class Lines(logging.Handler):
    """Each record as a line, for logs and pipes."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "state", "") != "started" and not _of_a_job(record):
            say(record.getMessage())


class Bars(logging.Handler):
    """Each stage as a bar that fills as its epochs end, its last words beside it."""

    def __init__(self, bars: Progress):
        super().__init__()
        self.bars = bars
        self.rows: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if _of_a_job(record):
            return
        stage = getattr(record, "stage", None) or record.getMessage().split(":")[0]
        text = record.getMessage().removeprefix(f"{stage}: ")
        state = getattr(record, "state", "running")
        if stage not in self.rows:
            if state == "running":
                return  # a line of no stage that was started
            self.rows[stage] = self.bars.add_task(stage, total=None, words="")
        self._update(self.rows[stage], state, text, getattr(record, "done", None))

    def _update(self, row: TaskID, state: str, text: str, done: float | None) -> None:
        facts: dict[str, Any] = {} if state == "started" else {"words": text}
        if state == "done":
            facts |= {"total": 1.0, "completed": 1.0}
            if text.startswith("done in"):
                # Keep what the stage found; its time stands in a column of its own.
                facts.pop("words")
        elif done is not None:
            facts |= {"total": 1.0, "completed": done}
        self.bars.update(row, **facts)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on a terminal, tabs between the columns elsewhere."""
    if not out.is_terminal:
        for row in [columns, *rows]:
            # Rich would make spaces of the tabs, and nothing could cut the columns apart.
            out.file.write("\t".join(row) + "\n")
        return
    grid = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    out.print(grid)


def _bars() -> Progress:
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True, min_width=9)),
        BarColumn(bar_width=10),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn(
            "{task.fields[words]}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        expand=True,
        console=out,
    )


@contextmanager
def _listening(handler: logging.Handler) -> Iterator[None]:
    handler.setLevel(logging.INFO)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
