"""Where `lyceum tune` looks for better models of knowledge tracing, by architecture.

Apart from the specs: another range makes no other model of the settings that are used.
"""

from __future__ import annotations

from ray_jobs.tuning.space import Choice, Range, Space

NETWORK: Space = {
    "spec.dropout": Range(0.0, 0.6),
    "spec.blank": Range(0.0, 0.3),
    "budget.learning_rate": Range(1e-3, 2e-2),
    "budget.weight_decay": Range(1e-3, 0.1),
}

SPACES: dict[str, Space] = {
    "lstm": {"spec.width": Choice((32, 64, 128, 256)), **NETWORK},
    "attention": {
        "spec.width": Choice((64, 128, 256)),
        "spec.layers": Range(1, 4, whole=True),
        **NETWORK,
    },
    "blend": {"spec.width": Choice((64, 128, 256)), **NETWORK},
    "logistic": {"spec.prior": Range(1.0, 1000.0)},
    "rasch": {"spec.prior": Range(0.1, 10.0)},
}
