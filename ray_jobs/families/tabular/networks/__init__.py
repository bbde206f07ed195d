"""The architectures of tables, one file each: the baseline, the default, and alternatives."""

from __future__ import annotations

from typing import Any

from ray_jobs.families.tabular.networks.boosting import Boosting
from ray_jobs.families.tabular.networks.forest import Forest
from ray_jobs.families.tabular.networks.linear import Linear
from ray_jobs.families.tabular.networks.mlp import Mlp
from ray_jobs.families.tabular.networks.stack import Stack

SPECS: dict[str, type[Any]] = {spec.name: spec for spec in (Boosting, Linear, Forest, Stack, Mlp)}

__all__ = ["SPECS", "Boosting", "Forest", "Linear", "Mlp", "Stack"]
