"""Batch norm over the whole batch, when several processes share it.

torch's `SyncBatchNorm` runs on GPUs only; this one runs anywhere, at the price of two small exchanges per layer and
pass. Mean and variance are those of one process with the same batch, and so are gradients and running statistics.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm whose statistics are of all processes' samples; parameters and names are those of what it replaces.

    Attributes:
        counts: whether this process's input counts. A process without samples sends something through the network all
            the same, because the others wait for it.
    """

    counts = True

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of axes from 2 on."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``(b, channels, ...)``; every process must call it together with the others in training mode."""
        alone = not self.training or input.is_meta  # without numbers, for counting operations: nobody else does
        return self._activated(super().forward(input) if alone else self._normalised(input))

    def _normalised(self, input: torch.Tensor) -> torch.Tensor:
        x = input.float()
        axes, shape = [0, *range(2, x.ndim)], [1, x.shape[1], *[1] * (x.ndim - 2)]
        own = float(self.counts)
        count = x.new_full((1,), own * x.numel() / x.shape[1])
        sums = _SumOverProcesses.apply(torch.cat([own * x.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean.view(shape)
        variance = _SumOverProcesses.apply(own * centred.square().sum(axes)) / total
        self._record(mean.detach(), variance.detach(), total)
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    def _activated(self, x: torch.Tensor) -> torch.Tensor:
        """Through what timm's batch norms bring along."""
        if hasattr(self, "act"):
            x = self.act(self.drop(x))  # type: ignore[operator]
        return x

    @torch.no_grad()
    def _record(self, mean: torch.Tensor, variance: torch.Tensor, total: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked or 1)
        unbiased = variance * total / (total - 1).clamp(min=1)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased, share)


def shared_statistics(network: nn.Module) -> nn.Module:
    """The network with every batch norm replaced, in place; weights, statistics and names stay."""
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SharedBatchNorm):
            setattr(network, name, _replaced(child))
        else:
            shared_statistics(child)
    return network


def _replaced(norm: Any) -> nn.Module:
    made = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    if norm.affine:
        made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    made.training = norm.training
    if hasattr(norm, "act"):
        made.drop, made.act = norm.drop, norm.act
    return made


class _SumOverProcesses(torch.autograd.Function):
    """Sum of the processes' tensors, the same everywhere; so is its gradient, of the sum of their losses."""

    @staticmethod
    def forward(ctx: Any, local: torch.Tensor) -> torch.Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
