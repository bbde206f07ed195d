"""Columns of a pandas frame as plain values, each told by row where it is not what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray_jobs.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd  # a worker or a replica need not have it


def values(rows: pd.DataFrame, name: str) -> list[Any]:
    """A column as Python values, missing ones as None; one that is not there is all None."""
    if name not in rows.columns:
        return [None] * len(rows)
    column = rows[name].astype(object)
    found: list[Any] = column.where(column.notna(), None).tolist()
    return found


def texts(rows: pd.DataFrame, name: str) -> list[str | None]:
    """A column as text."""
    return [None if value is None else str(value) for value in values(rows, name)]


def numbers(rows: pd.DataFrame, name: str) -> list[float | None]:
    """A column as numbers; raises ContractError naming the row where one is none."""
    found: list[float | None] = []
    for row, value in enumerate(values(rows, name)):
        try:
            found.append(None if value is None else float(value))
        except (TypeError, ValueError) as error:
            raise ContractError(f"row {row}: {name} is {value!r}; expected a number") from error
    return found
