"""What services keep of requests and of outcomes, on a store of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from ray_jobs.artifact import Artifact
from ray_jobs.serving.feedback import Recorder
from ray_jobs.serving.forgetting import Erased
from ray_jobs.serving.journal import Journal
from ray_jobs.serving.surface import House, Surface
from tests.surface_parts import (
    KEY,
    SERVICE,
    Ask,
    released,
    request,
)  # fmt: skip


def kept(folder: Path, name: str) -> pl.DataFrame:
    files = sorted((folder / name / SERVICE).rglob("date=*/*.parquet"))
    assert files, "nothing was written"
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])


def predicted(ask: Ask, candidates: int = 1, **more: Any) -> dict[str, Any]:
    told = ask("POST", "v1/predict", {**request(3, candidates), **more}).json()
    assert isinstance(told, dict)
    return told


def keeping(model: Artifact, folder: Path) -> Surface:
    """A service that keeps what it predicts and what it is told."""
    release, store = released(model), str(folder)
    house = House(
        journal=Journal(store, SERVICE, release.lineage, erased=Erased(store, KEY)),
        recorder=Recorder(store, SERVICE, Erased(store, KEY)),
    )
    return Surface(model, release, KEY, house=house)
