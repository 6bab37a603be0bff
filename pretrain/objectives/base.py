"""What the trainer asks of a loss."""

from __future__ import annotations

from typing import Protocol

import torch

from ..features import Features
from ..world import World


class Objective(Protocol):
    """A loss over the features of one batch."""

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """This process's part of each term of the loss, scalars by name, weights applied.

        Their sum over terms and processes is the loss of the whole batch; so a mean over the batch divides by
        `features.total`, not by this process's number of samples. With processes that have no samples it must still
        take part in every exchange.
        """
        ...
