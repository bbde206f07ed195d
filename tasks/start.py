"""Start: what training begins from, and why: the champion where a recipe asks, else nothing.

Nobody whom a champion learnt from may be in the test split of what begins from it. A salted
hash of ids sees to that while ids and the shares of the splits stay what they were, for every
champion that went before as well: each of them began under the same condition, or from nothing.
Nor may it have learnt from what lies after the cut in time, where there is one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray_jobs.artifact import Artifact, fetched
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.raw import BY_PLACE
from ray_jobs.data.split import SplitTable
from ray_jobs.errors import ArtifactError, StoreError
from ray_jobs.recipe import Start
from ray_jobs.serving.release import Release
from ray_jobs.training import warm
from tasks import register as registry
from tasks.record import Registry, division
from tasks.run import Run

log = logging.getLogger(__name__)

NOT_ASKED = "start.champion is false"


@dataclass(frozen=True)
class Begun:
    """A release that training begins from, or None, and why."""

    parent: Release | None
    why: str

    @property
    def tags(self) -> dict[str, str]:
        """What the run is told by in MLflow."""
        if self.parent is None:
            return {}
        return {registry.PARENT: self.parent.lineage, "parent_version": self.parent.version}

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": self.parent.version if self.parent else None,
            "lineage": self.parent.lineage if self.parent else None,
            "why": self.why,
        }


def begun(run: Run, mlflow: Registry, clean: CleanTable, splits: SplitTable) -> Begun:
    """What a run on these tables begins from; the answer stays when its model is champion."""
    if not run.recipe.start.champion:
        return Begun(None, NOT_ASKED)
    found = _begun(run, mlflow, clean, splits)
    where = f"version {found.parent.version}" if found.parent else "nothing"
    log.info("train: begins from %s, since %s", where, found.why)
    return found


def from_nothing(run: Run) -> Run:
    """The run that a start is compared with."""
    return replace(run, recipe=replace(run.recipe, start=Start()), parent=None)


def _begun(run: Run, mlflow: Registry, clean: CleanTable, splits: SplitTable) -> Begun:
    champion = mlflow.champion(run.recipe.service)
    if champion is None:
        return Begun(None, f"{run.recipe.service} has no champion yet")
    why = "it is the champion"
    if champion.card.get("data", {}).get("digest") == clean.digest:
        # It learnt from all of this: to learn it once more would not be the same model again.
        if not champion.parent:
            return Begun(None, f"version {champion.version} learnt from this very data")
        why = f"version {champion.version} learnt from this very data, and began there"
        try:
            champion = Release.load(champion.parent)
        except StoreError as error:
            return Begun(None, f"the version before it cannot be read: {error}")
    fault = _fault(run, mlflow, champion, splits, clean.notes)
    if fault:
        return Begun(None, f"version {champion.version} is no start: {fault}")
    return Begun(champion, why)


def _fault(
    run: Run, mlflow: Registry, parent: Release, splits: SplitTable, notes: Sequence[str]
) -> str:
    """Why training must not begin from a release; empty where it may."""
    if fault := _unlike(run, parent, splits, notes):
        return fault
    version = registry.find(mlflow.client, parent.service, parent.version)
    if version is None or registry.ERASED in version.tags:
        return "it learnt from somebody who was erased" if version else "the registry lost it"
    try:
        before = fetched(parent.artifact)
    except (ArtifactError, StoreError) as error:
        return str(error)
    return _misfit(run, parent, before)


def _unlike(run: Run, parent: Release, splits: SplitTable, notes: Sequence[str]) -> str:
    """Why a release may have learnt what is asked of what begins from it; empty where it cannot."""
    ours, theirs = division(run, splits), dict(parent.division)
    if ours["delivered"]:
        return "the data came with its split, so nobody knows whom an earlier model learnt from"
    if BY_PLACE in notes:
        return f"{BY_PLACE}, which may be another's now"
    cut, before = ours.pop("cut"), theirs.pop("cut", None)
    if theirs != ours:
        return f"its data was divided otherwise ({theirs or 'unknown'}, now {ours})"
    if cut is not None and (before is None or before > cut):
        return "it learnt from what came after the cut in time that divides this data"
    return ""


def _misfit(run: Run, parent: Release, before: Artifact) -> str:
    if before.digest != parent.digest:
        return f"{parent.artifact} is not what was released"
    return warm.misfit(before, run.recipe.spec)
