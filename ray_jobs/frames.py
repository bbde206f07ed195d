"""Columns of a pandas frame as plain values, each told by row where it is not what it should be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import ContractError
from ray_jobs.verb import Column

if TYPE_CHECKING:
    import pandas as pd  # a worker or a replica need not have it


@dataclass(frozen=True)
class Table:
    """A frame of plain lists, for where pandas is not."""

    lists: dict[str, list[Any]]  # by column; all of one length, missing values None

    @property
    def columns(self) -> list[str]:
        return list(self.lists)

    def __len__(self) -> int:
        return len(next(iter(self.lists.values()), []))


def must_have(rows: pd.DataFrame | Table, columns: Iterable[Column]) -> None:
    """Raise ContractError for a frame that lacks a required column."""
    columns = list(columns)
    missing = [c.name for c in columns if c.required and c.name not in rows.columns]
    if missing:
        raise ContractError(
            f"the frame has no column {missing[0]!r}; expected "
            + ", ".join(f"{c.name} ({c.meaning})" for c in columns)
        )


def values(rows: pd.DataFrame | Table, name: str) -> list[Any]:
    """A column as Python values, missing ones as None; one that is not there is all None."""
    if name not in rows.columns:
        return [None] * len(rows)
    if isinstance(rows, Table):
        return rows.lists[name]
    column = rows[name].astype(object)
    found: list[Any] = column.where(column.notna(), None).tolist()
    return found


def texts(rows: pd.DataFrame | Table, name: str) -> list[str | None]:
    """A column as text."""
    return [None if value is None else str(value) for value in values(rows, name)]


def numbers(rows: pd.DataFrame | Table, name: str) -> list[float | None]:
    """A column as numbers; raises ContractError naming the row where one is none."""
    found: list[float | None] = []
    for row, value in enumerate(values(rows, name)):
        try:
            found.append(None if value is None else float(value))
        except (TypeError, ValueError) as error:
            raise ContractError(f"row {row}: {name} is {value!r}; expected a number") from error
    return found
