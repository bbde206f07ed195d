"""Whether a cluster has room for the workers that are asked for: told at once, never waited for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray_jobs.errors import TrainingError
from ray_jobs.recipe import Resources


def must_fit(resources: Resources, workers: int, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise TrainingError when a cluster could never hold so many workers."""
    claims = {
        kind: (each, setting)
        for kind, each, setting in (
            ("CPU", resources.worker_cpus, "resources.worker_cpus"),
            ("GPU", resources.worker_gpus, "resources.worker_gpus"),
        )
        if each
    }
    if not claims:
        return
    # A worker takes all it claims from one node; rounding must not cost one.
    room = sum(
        min(int(node.get(kind, 0.0) / each + 1e-9) for kind, (each, _) in claims.items())
        for node in nodes
    )
    if workers > room:
        asked = " and ".join(f"{each:g} {kind}" for kind, (each, _) in claims.items())
        there = " and ".join(f"{sum(n.get(kind, 0.0) for n in nodes):g} {kind}" for kind in claims)
        less = " or ".join(f"--set {setting}=..." for _, setting in claims.values())
        fewer = f"use fewer (--workers {room}) or " if room else ""
        raise TrainingError(
            f"{workers} workers with {asked} each do not fit: the cluster has {there} on "
            f"{len(nodes)} node(s), room for {room}; {fewer}claim less each ({less})"
        )


def nodes() -> list[Mapping[str, float]]:
    """What each node of the Ray that this process has joined can give."""
    import ray

    every: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in every if node["Alive"]]


def must_fit_here(resources: Resources, workers: int, cpus: int) -> None:
    """The same of a Ray that is yet to be started on this machine, which counts its GPUs itself."""
    claims = replace(resources, worker_gpus=0.0)
    must_fit(claims, workers, [{"CPU": float(cpus or os.cpu_count() or 1)}])
