"""The processes that train one model together: who has which samples of a batch, and how they exchange features.

A batch is the same whatever the number of processes: each takes its run of consecutive samples (`share`), and every
objective returns its part of the whole batch's loss. The sum over processes, and of their gradients, is what one
process alone would get. Alone, nothing here communicates and torch.distributed need not be there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


def share(total: int, rank: int, size: int) -> tuple[int, int]:
    """First sample and the one after the last that process `rank` of `size` has of a batch of `total`.

    Shares differ by one sample at most; with fewer samples than processes some are empty.
    """
    return total * rank // size, total * (rank + 1) // size


@dataclass(frozen=True)
class World:
    """This process's place among those that train together.

    Attributes:
        rank: its number, from 0; process 0 writes what is written once.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, total: int) -> tuple[int, int]:
        """This process's part of a batch of `total` samples."""
        return share(total, self.rank, self.size)

    def gather(self, local: torch.Tensor, total: int) -> torch.Tensor:
        """Rows of all processes, ``(total, ...)``, in the batch's order; gradients flow back to where rows came from.

        Args:
            local: this process's rows ``(b, ...)``, as many as its `share` of `total`.
        """
        if self.size == 1:
            return local
        raise NotImplementedError


ALONE = World()
