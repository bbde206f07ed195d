"""A release: everything a replica needs to serve one version, as one file on the store.

Fixed when the version is registered, so a replica that restarts at night,
with MLflow down, serves the same weights and passes the same golden requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ray_jobs import store
from ray_jobs.artifact import Artifact
from ray_jobs.errors import ServiceError, UsageError
from ray_jobs.predictor import predict

TOLERANCE = 1e-4  # of golden predictions: other machines round otherwise


@dataclass(frozen=True)
class Release:
    """One version of one service."""

    service: str
    family: str
    lineage: str
    artifact: str  # folder on the store
    digest: str  # of the artifact
    golden: list[dict[str, Any]]  # {"request": ..., "outcomes": [[p, ...], ...]}
    card: dict[str, Any]  # data, protocol, figures, spec: what v1/model tells
    resources: dict[str, Any] = field(default_factory=dict)  # as recipe.Resources; empty: usual
    version: str = ""  # MLflow's number, known once registered
    division: dict[str, Any] = field(default_factory=dict)  # how its data was split
    parent: str = ""  # URI of the release it was trained on from; empty: from nothing
    barred: str = ""  # why it may never serve, by the protocol of its figures; empty: it may

    def save(self, uri: str) -> None:
        store.write_json(uri, asdict(self))

    @classmethod
    def load(cls, uri: str) -> Release:
        return cls(**store.read_json(uri))

    def refuse_barred(self) -> None:
        """Raise UsageError where it may not serve."""
        if self.barred:
            raise UsageError(
                f"version {self.version} of {self.service} may not serve: {self.barred}; "
                "choose another version"
            )


def golden_outcomes(model: Artifact, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each request with what the model answers to it now."""
    return [{"request": r, "outcomes": _outcomes(model, r)} for r in requests]


def verify(model: Artifact, release: Release) -> None:
    """Raises ServiceError when the model is not the release's, or answers otherwise."""
    if model.digest != release.digest:
        raise ServiceError(
            f"{release.artifact} has digest {model.digest[:12]}, but {release.service} was "
            f"released with {release.digest[:12]}; train again or roll back"
        )
    if not release.golden:
        raise ServiceError(
            f"{release.service} was released without golden requests, so nothing proves that "
            "its answers are those that were evaluated; train again"
        )
    for number, case in enumerate(release.golden):
        off = deviation(_outcomes(model, case["request"]), case["outcomes"])
        if not off <= TOLERANCE:  # NaN must fail too
            raise ServiceError(
                f"golden request {number} of {release.service} is answered {off:.4f} away from "
                f"what was evaluated (tolerance {TOLERANCE}); the model will not be served"
            )


def deviation(now: Sequence[ArrayLike], then: Sequence[ArrayLike]) -> float:
    """The largest difference between two answers to one request; infinite for another shape.

    Of numbers beyond 1 it is their share that counts, since they have no scale of their own.
    """
    left, right = ([np.asarray(o, np.float64) for o in answer] for answer in (now, then))
    if [o.shape for o in left] != [o.shape for o in right]:
        return float("inf")
    ours, known = (np.concatenate([o.ravel() for o in answer]) for answer in (left, right))
    return float((np.abs(ours - known) / np.maximum(np.abs(known), 1.0)).max())


def _outcomes(model: Artifact, request: dict[str, Any]) -> list[Any]:
    verb = model.family.api.verbs(model.vocabulary)["predict"]
    examples = verb.examples(verb.request.model_validate(request), model.vocabulary)
    return [outcome.astype(float).tolist() for outcome in predict(model, examples)]
