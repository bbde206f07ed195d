"""What is minimised: cross-entropy of outcomes, squared or Huber error of numbers.

Summed over scored rows, the mean over heads, each of which learns for itself;
errors of numbers are in standard deviations of the label.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ray_jobs.families.tabular.batch import Batch, Outputs


def loss(outputs: Outputs, batch: Batch) -> Tensor:
    """Summed loss, in nats or squared standard deviations, a scalar."""
    values, target = outputs.values[batch.scored], batch.target[batch.scored]
    heads = values.shape[1]
    if batch.kind == "classes":
        repeated = target.long().repeat_interleave(heads)
        return functional.cross_entropy(values.flatten(0, 1), repeated, reduction="sum") / heads
    wanted = target[:, None].expand_as(values)
    if batch.kind == "binary":
        return functional.binary_cross_entropy_with_logits(values, wanted, reduction="sum") / heads
    error = functional.huber_loss if outputs.robust else functional.mse_loss
    return error(values / batch.sd, wanted / batch.sd, reduction="sum") / heads


def weight(batch: Batch) -> Tensor:
    """Number of scored rows, a scalar float32."""
    return batch.scored.sum().float()
