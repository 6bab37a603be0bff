"""A scalar whose gradient was computed together with its value.

The losses over all pairs of a batch make value and gradient in one pass over chunks of the similarity matrix, so that
no more than a chunk of it ever exists. Autograd only multiplies what is ready. The price: no second derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def known_gradient(value: torch.Tensor, gradients: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """`value` ``()`` as a function of tensors, given as (tensor, d value / d tensor)."""
    inputs = [tensor for tensor, _ in gradients]
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in inputs):
        return value
    return _KnownGradient.apply(value, *inputs, *(gradient for _, gradient in gradients))  # type: ignore[return-value]


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*rest[len(rest) // 2 :])
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:  # type: ignore[override]
        gradients = ctx.saved_tensors
        return None, *(upstream * gradient for gradient in gradients), *(None for _ in gradients)
