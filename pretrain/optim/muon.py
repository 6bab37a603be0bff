"""Muon: momentum whose singular values are all made one, for the matrices inside the towers; AdamW for everything else.

The direction of a matrix's update is the nearest orthogonal matrix to its momentum, found by a few Newton-Schulz
iterations (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024). Each update is scaled by
``0.2 sqrt(max(rows, columns))`` to the root mean square that AdamW's updates usually have (Liu et al., "Muon is
scalable for LLM training", 2025), so one rate and one weight decay serve both parts. Queries, keys and values that
share one matrix are made orthogonal one by one, convolutions as matrices (outputs, rest).

The price: 5 iterations are 15 products of matrices per step, small against the step of a large batch and dominant in a
tiny model's. Half the state of AdamW. Sharded matrices (FSDP) are gathered for the iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd quintic; steep at 0, so small singular values grow fast


def orthogonalised(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """``(..., n, m)`` -> about the nearest orthogonal matrices, singular values within 0.6 to 1.3 or so; float32.

    bfloat16 products on a GPU, which the iteration bears; float32 on a CPU.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # Frobenius: no singular value exceeds 1
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.AdamW):
    """AdamW, but for the groups that say ``orthogonal: True``. A group's ``pieces`` is how many matrices lie on top of
    each other in each of its tensors (3 where queries, keys and values share one)."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        momentum: float,
        nesterov: bool,
        iterations: int,
    ) -> None:
        own = {"orthogonal": False, "pieces": 1, "momentum": momentum, "nesterov": nesterov, "iterations": iterations}
        super().__init__([own | group for group in groups], lr=lr, betas=betas, eps=eps)

    def step(self, closure: Callable[[], float] | None = None) -> Any:  # type: ignore[override]
        """One step of all groups."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["orthogonal"]]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["orthogonal"]:
                self._orthogonal_step(group)
        return loss

    @torch.no_grad()
    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())  # AdamW expects one in every state that it reads
                state["momentum"] = torch.zeros_like(p)
            state["step"] += 1
            momentum = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            direction = p.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
            update = _like(p, _update(_whole(direction), group["pieces"], group["iterations"]))
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.to(p.dtype), alpha=-group["lr"])


def _update(direction: torch.Tensor, pieces: int, iterations: int) -> torch.Tensor:
    """Orthogonalised and scaled, in the shape of `direction`."""
    rows = len(direction) // pieces
    matrices = direction.reshape(pieces, rows, -1)
    scale = 0.2 * math.sqrt(max(matrices.shape[1:]))
    return (scale * orthogonalised(matrices, iterations)).reshape(direction.shape)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which this process may hold a shard only."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[operator]


def _like(p: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """This process's shard of `whole`, laid out like `p`. Every process has all of it, so nothing is sent."""
    if not hasattr(p, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = p
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements, src_data_rank=None)
