"""The architectures of knowledge tracing, one file each: baselines, default, alternative, both."""

from __future__ import annotations

from typing import Any

from ray_jobs.families.knowledge.networks.attention import Attention
from ray_jobs.families.knowledge.networks.blend import Blend
from ray_jobs.families.knowledge.networks.logistic import Logistic
from ray_jobs.families.knowledge.networks.lstm import Lstm
from ray_jobs.families.knowledge.networks.rasch import Rasch

SPECS: dict[str, type[Any]] = {
    spec.name: spec for spec in (Rasch, Logistic, Lstm, Attention, Blend)
}

__all__ = ["SPECS", "Attention", "Blend", "Logistic", "Lstm", "Rasch"]
