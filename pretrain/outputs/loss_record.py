"""The losses of the steps since the last line of the log, read from the device only with that line.

Asking a GPU for a number at every step would make it wait for the answer; so each step's terms stay where they were
computed until a line is due, the state is saved, or somebody must know whether they are finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ...errors import DataError
from ..processes.world import World

TOTAL = "loss"


class LossRecord:
    """Terms of the loss of up to `capacity` steps; of a step that was left out there is a row of nothing."""

    def __init__(self, capacity: int, device: torch.device, world: World) -> None:
        self._capacity, self._device, self._world = capacity, device, world
        self._names: list[str] = []
        self._rows = torch.zeros((0, 0), device=device)
        self.count = 0

    def restore(self, names: list[str], rows: list[list[float]]) -> None:
        """Go on with what `saved` gave."""
        if names:
            self._begin(names)
            self.count = len(rows)
            if self._world.rank == 0 and rows:  # they were summed over processes
                self._rows[: len(rows)] = torch.tensor(rows, device=self._device)

    def add(self, terms: Mapping[str, torch.Tensor]) -> None:
        """One step's terms, this process's part."""
        if not self._names:
            self._begin(list(terms))
        self._rows[self.count, :-1] = torch.stack([terms[name].float() for name in self._names])
        self._rows[self.count, -1] = 1.0
        self.count += 1

    def leave_out(self, terms: Mapping[str, torch.Tensor]) -> None:
        """A step that did not count, and so takes no part in means.

        Args:
            terms: of its loss, whatever they are.
        """
        if not self._names:
            self._begin(list(terms))
        self._rows[self.count] = 0.0
        self.count += 1

    def saved(self, step: int, steps: int) -> tuple[list[str], list[list[float]]]:
        """Names and the values so far, summed over processes; every process must ask. Behind a row's values stands
        whether it counts: 0 if not.

        Raises:
            DataError: a loss is not finite; `step` is the last one.
        """
        if self._world.size > 1 and self.count:
            summed = self._world.sum(self._rows[: self.count])
            self._rows[: self.count] = summed if self._world.rank == 0 else 0.0
            rows = summed.tolist()
        else:
            rows = self._rows[: self.count].tolist()
        for i, row in enumerate(rows):
            total = math.fsum(row[:-1])
            if not math.isfinite(total):
                bad = step - len(rows) + i + 1
                raise DataError(
                    f"the loss is {total} at step {bad} of {steps}; "
                    "lower the recipe's lr, lengthen its warmup or set grad_clip"
                )
        return self._names, rows

    def flush(self, step: int, steps: int) -> dict[str, float]:
        """Means since the last flush: ``loss``, and each term as ``loss/NAME`` if there are several; then empty.
        Without any step that counts there are no means.

        Raises:
            DataError: a loss is not finite.
        """
        names, rows = self.saved(step, steps)
        self.count = 0
        rows = [row[:-1] for row in rows if row[-1]]
        if not rows:
            return {}
        means = {TOTAL: math.fsum(math.fsum(row) for row in rows) / len(rows)}
        if len(names) > 1:
            means |= {f"{TOTAL}/{n}": math.fsum(row[i] for row in rows) / len(rows) for i, n in enumerate(names)}
        return means

    def _begin(self, names: list[str]) -> None:
        self._names = names
        self._rows = torch.zeros((self._capacity, len(names) + 1), device=self._device)
