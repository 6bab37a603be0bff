"""What the trainer asks of a loss."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from ..features import Features
from ..processes.world import World


class Objective(Protocol):
    """A loss over the features of one batch."""

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """This process's part of each term of the loss, scalars by name, weights applied.

        Their sum over terms and processes is the loss of the whole batch; so a mean over the batch divides by
        `features.total`, not by this process's number of samples. With processes that have no samples it must still
        take part in every exchange. Gradients are summed over processes; every process must scale the loss alike,
        because a sample's gradient may already hold what the other processes say about it.
        """
        ...


@runtime_checkable
class Counts(Protocol):
    """An objective that not every sample of a batch takes part in."""

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """How many of this process's samples take part in each term, ``() int64`` by the term's name, for the log."""
        ...


def couples_samples(objective: Objective) -> bool:
    """Whether a sample's part of the loss depends on other samples, of this process or another.

    If not, a batch may be given in pieces. An objective says so by an attribute of this name; without one it does.
    """
    return getattr(objective, "couples_samples", True)
