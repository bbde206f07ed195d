"""What is minimised: binary cross-entropy over the scored answers of a batch.

Summed, with its weight apart, so that workers and micro-batches add up to the
same loss however the answers were divided among them.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ray_jobs.families.knowledge.batch import Batch


def loss(logits: Tensor, batch: Batch) -> Tensor:
    """Summed cross-entropy in nats over scored steps; partial credit is a soft target."""
    return binary_cross_entropy_with_logits(
        logits[batch.scored], batch.correct[batch.scored], reduction="sum"
    )


def weight(batch: Batch) -> Tensor:
    """Number of scored steps, a scalar float32."""
    return batch.scored.sum().float()
