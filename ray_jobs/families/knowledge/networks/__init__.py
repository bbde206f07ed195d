"""The architectures of knowledge tracing, one file each: baseline, default, alternative."""

from __future__ import annotations

from typing import Any

from ray_jobs.families.knowledge.networks.attention import Attention
from ray_jobs.families.knowledge.networks.lstm import Lstm
from ray_jobs.families.knowledge.networks.rasch import Rasch

SPECS: dict[str, type[Any]] = {spec.name: spec for spec in (Rasch, Lstm, Attention)}

__all__ = ["SPECS", "Attention", "Lstm", "Rasch"]
