"""Where `lyceum tune` looks for better models of tables, by architecture.

Apart from the specs: another range makes no other model of the settings that are
used. Linear model and stack have none: what they weigh, they choose by the data.
"""

from __future__ import annotations

from ray_jobs.tuning.space import Choice, Range, Space

SPACES: dict[str, Space] = {
    "boosting": {
        "spec.leaves": Range(3, 63, whole=True),
        "spec.rate": Range(0.005, 0.1),
        "spec.rows_of_leaf": Range(2, 50, whole=True),
        "spec.columns": Range(0.3, 1.0),
        "spec.rows": Range(0.4, 1.0),
    },
    "forest": {
        "spec.leaves": Range(15, 511, whole=True),
        "spec.rows_of_leaf": Range(1, 30, whole=True),
        "spec.columns": Range(0.2, 1.0),
        "spec.rows": Range(0.4, 0.9),
    },
    "mlp": {
        "spec.width": Choice((32, 64, 128, 256)),
        "spec.heads": Choice((1, 4, 8, 16)),
        "spec.periods": Choice((0, 8, 16, 32)),
        "spec.dropout": Range(0.0, 0.5),
        "budget.learning_rate": Range(5e-4, 2e-2),
        "budget.weight_decay": Range(1e-3, 0.1),
    },
}
