"""Feedback: what really happened, joined to what was predicted by its signed id.

It is on the store before it is acknowledged; whoever comes while a write is under way
goes together into the next. Told twice it counts once: readers go by id and position.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.errors import ContractError, LyceumError
from ray_jobs.privacy import Key
from ray_jobs.serving import receipt
from ray_jobs.serving.journal import as_json, write
from ray_jobs.serving.problem import Problem
from ray_jobs.serving.receipt import Receipt
from ray_jobs.target import Target
from ray_jobs.verb import Logged

if TYPE_CHECKING:
    from ray_jobs.serving.forgetting import Erased

log = logging.getLogger(__name__)

FOLDER = "feedback"  # of the store
AGAIN_S = b"2"
SCHEMA = pl.Schema(
    {
        "id": pl.String(),  # of the prediction
        "position": pl.Int32(),
        "version": pl.String(),  # which predicted
        "predicted": pl.Float64(),  # unix seconds
        "recorded": pl.Float64(),  # unix seconds
        "key": pl.String(),  # id of the key that told
        "learner": pl.String(),  # alias
        # What it was about and what happened, as a line of a log in JSON; null: it was too long.
        "row": pl.String(),
        "prediction": pl.String(),  # as JSON: a number, or one for each class
        "kind": pl.String(),  # of what is predicted: binary, classes or number
        "truth": pl.Float64(),  # what happened: a number, or which of the outcomes
    }
)


class FeedbackRequest(BaseModel):
    """What really happened, for each prediction of an answer, in their order."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"prediction_id": "WyI1ZjA...", "outcomes": [1]}]},
    )

    prediction_id: str = Field(max_length=receipt.LONGEST, description="as an answer gave it")
    outcomes: list[float | str | None] = Field(
        min_length=1,
        max_length=receipt.KEPT,
        description="a number, or the name of an outcome; null where nothing happened",
    )
    time: float | None = Field(default=None, ge=0, description="unix seconds of the outcome")


class FeedbackResponse(BaseModel):
    """How many outcomes are kept."""

    recorded: int


@dataclass(frozen=True)
class Outcomes:
    """What one service takes for an outcome."""

    key: Key
    service: str
    version: str
    logged: Logged

    def rows(self, told: FeedbackRequest, *, by: str, pointer: str = "") -> list[dict[str, Any]]:
        """What is kept of a request; raises Problem (422) for what is not ours, or does not fit."""
        note = _note(self.key, self.service, told.prediction_id, pointer)
        target = self._target(note, told.prediction_id, pointer)
        if len(told.outcomes) > len(note.rows):
            detail = f"{len(told.outcomes)} outcomes of {len(note.rows)} predictions"
            raise _refused(f"{pointer}/outcomes", detail)
        fitting = {
            position: self._fitting(outcome, target, f"{pointer}/outcomes/{position}")
            for position, outcome in enumerate(told.outcomes)
            if outcome is not None
        }
        return [
            self._row(note, position, outcome, told.time)
            | {"key": by, "kind": target.kind, "truth": _truth(outcome, target)}
            for position, outcome in fitting.items()
        ]

    def _target(self, note: Receipt, prediction_id: str, pointer: str) -> Target:
        """What was predicted, as the version has it that did, which need not be this one."""
        if note.target:
            return note.target
        today = self.logged.target
        if today.outcomes and note.version != self.version:
            raise _refused(f"{pointer}/prediction_id", str(receipt.too_little(prediction_id)))
        return today

    def _row(
        self, note: Receipt, position: int, outcome: float | str, time_s: float | None
    ) -> dict[str, Any]:
        when = float(note.time_s) if time_s is None else time_s
        about, row = {self.logged.learner: note.learner, self.logged.time: when}, None
        if (asked := note.rows[position]) is not None:
            line = {**asked, self.logged.column: outcome, **about}
            row = as_json({name: value for name, value in line.items() if name})
        return {
            "id": note.id,
            "position": position,
            "version": note.version,
            "predicted": float(note.time_s),
            "recorded": time.time(),
            "learner": note.learner,
            "row": row,
            "prediction": as_json(note.predictions[position]),
        }

    def _fitting(self, told: float | str, target: Target, where: str) -> float | str:
        """An outcome as a log would have it; raises Problem for one that cannot be."""
        try:
            return self.logged.outcome(told, target)
        except ValueError as error:
            raise _refused(where, f"{str(told)[:100]!r} is no outcome; {error}") from error


class Recorder:
    """A replica's way to the store, where nothing is kept of the erased; that is no fault."""

    def __init__(self, store_uri: str, service: str, erased: Erased | None = None) -> None:
        self.store_uri = store_uri
        self.service = service
        self.erased = erased
        self.waiting: list[tuple[list[dict[str, Any]], asyncio.Future[None]]] = []
        self.runner: asyncio.Task[None] | None = None

    async def record(self, kept: list[dict[str, Any]]) -> None:
        """Return once these rows are on the store; raises Problem (503) where they are not."""
        if not kept:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((kept, done))
        if self.runner is None or self.runner.done():
            self.runner = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        while self.waiting:
            group, self.waiting = self.waiting, []
            failed: Exception | None = None
            try:
                await asyncio.to_thread(self._write, [kept for kept, _ in group])
            except (LyceumError, OSError) as error:
                log.warning("feedback could not be written: %s", error)
                failed = _away()
            except Exception as error:
                log.exception("feedback could not be written")
                failed = error  # each caller gets it; the runner lives on
            for _, done in group:
                _end(done, failed)

    def _write(self, group: list[list[dict[str, Any]]]) -> None:
        rows = pl.DataFrame([row for kept in group for row in kept], schema=SCHEMA)
        write(self.store_uri, FOLDER, self.service, rows, self.erased)


def _end(done: asyncio.Future[None], failed: Exception | None) -> None:
    if done.done():  # a client that left has cancelled it
        return
    if failed is None:
        done.set_result(None)
    else:
        done.set_exception(failed)


def _away() -> Problem:
    detail = "the store does not take it just now; send it again, which counts once"
    return Problem(503, detail, headers=((b"retry-after", AGAIN_S),))


def _note(key: Key, service: str, prediction_id: str, pointer: str) -> Receipt:
    where = f"{pointer}/prediction_id"
    try:
        note = receipt.verified(key, prediction_id)
    except ContractError as error:
        raise _refused(where, str(error)) from error
    if note.service != service:
        raise _refused(where, f"given out by {note.service}, and this is {service}")
    if not note.rows:
        detail = "of an answer that foretells no outcome, or too many; that of v1/predict does"
        raise _refused(where, detail)
    return note


def _truth(outcome: float | str, target: Target) -> float:
    return float(target.outcomes.index(outcome) if isinstance(outcome, str) else outcome)


def _refused(pointer: str, detail: str) -> Problem:
    return Problem(422, f"{pointer}: {detail}", [{"pointer": pointer, "detail": detail}])
