"""Attention within blocks of steps and to the block before: linear in the length of a history."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention


def forgetting(heads: int, block: int) -> Tensor:
    """Additive bias (H, C, 2C) of a block's steps towards the block before and itself.

    The penalty grows linearly with distance, at another slope for each head.
    """
    slopes = 2.0 ** -torch.arange(1.0, 8.1, 7.0 / max(heads - 1, 1))[:heads]
    distance = (torch.arange(block)[:, None] + block) - torch.arange(2 * block)[None, :]
    penalty = -slopes[:, None, None] * distance
    return penalty.masked_fill(distance < 0, float("-inf"))


def block_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attend within blocks of C steps anchored at step 0, and to the block before; (B, H, T, D).

    Anchored there, a step's reach depends on its own position alone, so neither
    padding nor anything later can move it.
    """
    block, steps = bias.shape[1], query.shape[2]
    if steps <= block:
        near = bias[None, :, :steps, block : block + steps]
        return attend(query, key, value, near)
    query, key, value = (_in_blocks(x, block) for x in (query, key, value))
    # The first block has none before it; every other one sees the whole bias.
    first = attend(query[:, :, 0], key[:, :, 0], value[:, :, 0], bias[None, :, :, block:])
    rest = _attend_back(query, key, value, bias)
    return torch.cat([first.unsqueeze(2), rest], dim=2).flatten(2, 3)[:, :, :steps]


def _attend_back(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Blocks 1.. (B, H, n, C, D) attend to the block before and themselves."""
    key, value = (torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=3) for x in (key, value))
    query = query[:, :, 1:]
    batch, blocks = query.shape[0], query.shape[2]
    query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    read = attend(query, key, value, bias[None])
    return read.view(batch, blocks, *read.shape[1:]).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention with an additive bias (1, H, T, S); (B, H, T, D)."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
    # On CPUs the way back through torch's own takes twice as long in half precision.
    query, key, value = (x.contiguous() for x in (query, key, value))
    shape, scale = query.shape[:3] + key.shape[2:3], query.shape[-1] ** -0.5
    near = bias.to(query.dtype).expand(shape).flatten(0, 1)
    scores = torch.baddbmm(near, query.flatten(0, 1), key.flatten(0, 1).mT, alpha=scale)
    read = torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1))
    return read.view_as(query)


def _in_blocks(x: Tensor, block: int) -> Tensor:
    """(B, H, T, D) to (B, H, n, C, D), padded at the end."""
    batch, heads, steps, width = x.shape
    return pad(x, (0, 0, 0, -steps % block)).view(batch, heads, -1, block, width)
