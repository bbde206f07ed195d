"""What clients say and hear: what is known of a case in, its likely outcome out, with reasons.

Request and response are made for a model's columns, so that a misspelt name is
refused and the documentation lists what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, create_model

from ray_jobs.families import Api
from ray_jobs.families.tabular import reasons
from ray_jobs.families.tabular.batch import Row, Rows
from ray_jobs.families.tabular.frame import columns, example, frame, outputs
from ray_jobs.families.tabular.table import PREFIX
from ray_jobs.families.tabular.vocabulary import Category, Number, Vocabulary
from ray_jobs.target import Target
from ray_jobs.verb import Explanation, Logged, Verb

GOLDEN = 4
LONGEST = 512  # characters of a category


class Strict(BaseModel):
    """An unknown field is a misspelt one, and refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=False)


class Reason(BaseModel):
    feature: str
    value: float | str | None = Field(description="as it was told; null where it was not")
    effect: float = Field(description="how far it moves the prediction, beside a typical case")


class Chances(BaseModel):
    """The likeliest outcome, and the probability of each."""

    outcome: str
    probabilities: dict[str, float]
    reasons: list[Reason] = Field(default=[], description="where asked for")


class Amount(BaseModel):
    """The expected number."""

    value: float
    reasons: list[Reason] = Field(default=[], description="where asked for")


def verbs(vocabulary: Vocabulary) -> dict[str, Verb]:
    """The routes of a model with these columns."""
    kind = Amount if vocabulary.target.kind == "number" else Chances
    return {
        "predict": Verb(
            request=_request(vocabulary),
            response=kind,
            cost=lambda _: 1,
            examples=_examples,
            answer=_answer,
            explanation=Explanation(
                cost=lambda _: reasons.variants(vocabulary),
                examples=lambda request, words: reasons.examples(_told(request), words),
                reasons=lambda request, outcomes, words: reasons.reasons(
                    _told(request), outcomes, words
                ),
            ),
            logged=Logged(lambda request: [_told(request)], "label", vocabulary.target, _outcome),
        )
    }


def golden(table: pl.DataFrame, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """A few predict requests out of a clean table, and one that tells nothing."""
    names = [column.name for column in vocabulary.columns]
    rows = table.filter("scored").head(GOLDEN).select(pl.col(PREFIX + n).alias(n) for n in names)
    told = [{n: v for n, v in row.items() if v is not None} for row in rows.to_dicts()]
    return [*({"features": row} for row in told), {"features": {}}]


def _request(vocabulary: Vocabulary) -> type[BaseModel]:
    columns = vocabulary.columns
    # A column's name may be anything, so that it stands as an alias.
    fields: Any = {f"f{i}": _field(column) for i, column in enumerate(columns)}
    features = create_model("Features", __base__=Strict, __doc__="What is known.", **fields)
    told: dict[str, Any] = {c.name: _typical(c) for c in columns}
    request: Any = create_model(
        "PredictRequest",
        __base__=Strict,
        __doc__="How will this case turn out? What is not known may be left out, or null.",
        features=(features, ...),
    )
    request.model_config["json_schema_extra"] = {"examples": [{"features": told}]}
    made: type[BaseModel] = request
    return made


def _field(column: Number | Category) -> Any:
    alias = column.name
    if isinstance(column, Number):
        return (float | None, Field(default=None, alias=alias))
    shown = ", ".join(column.values[:10])
    words = f"in training: {shown}{', ...' if len(column.values) > 10 else ''}"
    return (
        str | None,
        Field(default=None, alias=alias, max_length=LONGEST, description=words),
    )


def _typical(column: Number | Category) -> float | str:
    if isinstance(column, Number):
        return column.quantiles[len(column.quantiles) // 2]
    return column.values[0] if column.values else ""


def _told(request: Any) -> dict[str, Any]:
    told: dict[str, Any] = request.features.model_dump(by_alias=True)
    return told


def _outcome(outcome: float | str, target: Target) -> float | str:
    if target.kind == "number":
        if isinstance(outcome, str):
            raise ValueError("expected a number")
        return outcome
    name = outcome if isinstance(outcome, str) else f"{outcome:g}"
    if name not in target.outcomes:
        raise ValueError(f"expected one of {', '.join(target.outcomes[:20])}")
    return name


def _examples(request: Any, vocabulary: Vocabulary) -> list[Row]:
    return list(rows([_told(request)], vocabulary))


def rows(told: Sequence[dict[str, Any]], vocabulary: Vocabulary) -> Rows:
    """Rows of what clients tell."""
    columns = {n.name: pl.Float64() for n in vocabulary.numbers}
    schema = columns | {c.name: pl.String() for c in vocabulary.categories}
    table = pl.DataFrame(told, schema=schema).rename(lambda name: PREFIX + name)
    return Rows(table, vocabulary)


def _answer(
    _request: Any, outcomes: Sequence[NDArray[Any]], vocabulary: Vocabulary
) -> dict[str, Any]:
    (told,) = outcomes[0]
    target = vocabulary.target
    if target.kind == "number":
        return {"value": round(float(told), 6)}
    shares = [1 - float(told), float(told)] if target.kind == "binary" else told.tolist()
    chances = dict(zip(target.outcomes, (round(share, 6) for share in shares), strict=True))
    return {"outcome": max(chances, key=lambda name: chances[name]), "probabilities": chances}


API = Api(
    verbs=verbs, columns=columns, outputs=outputs, frame=frame, example=example, golden=golden
)
