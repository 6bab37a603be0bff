"""What the trainer asks of a loss."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn


class Objective(Protocol):
    """A loss over one batch of pairs, and the constraint that the model keeps after every step."""

    def loss(self, image: torch.Tensor, text: torch.Tensor, model: nn.Module) -> torch.Tensor:
        """Scalar loss of paired, L2-normalised features ``(b, d) float32``; row i of both is one sample."""
        ...

    def after_step(self, model: nn.Module) -> None:
        """Bring the model's own scalars (the logit scale...) back into their range."""
        ...
