"""Exponential moving average of the weights (Polyak & Juditsky, 1992; Izmailov et al., UAI 2018, for networks).

Averages lie beside the weights, on the same device, in float32, and sharded as they are: every operation is
elementwise. Weights that are locked are not averaged. Statistics (batch norm's) are copied, since averages of averages
lag twice.
The price is one more copy of the weights and, per update, one pass over both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...errors import DataError
from .ema_options import EmaOptions


class Ema:
    """The moving average of a network's weights.

    Attributes:
        updates: done so far.
    """

    def __init__(self, network: nn.Module, options: EmaOptions) -> None:
        """The average begins at the present weights. Make it after the network was put on its device and sharded."""
        self.options = options
        self.updates = 0
        self._weights = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self._statistics = dict(network.named_buffers())
        kept = {**self._weights, **self._statistics}
        self._averages = {n: _as_float32(t.detach()) if n in self._weights else t.clone() for n, t in kept.items()}

    def decay_at(self, update: int) -> float:
        """Share of the average that update `update` (from 0) keeps."""
        decay = self.options.decay**self.options.every
        return min(decay, (1 + update) / (10 + update)) if self.options.warmup else decay

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take in the weights after step `step` (from 0), if its turn has come."""
        if (step + 1) % self.options.every:
            return
        new = 1 - self.decay_at(self.updates)
        for name, weight in self._weights.items():
            self._averages[name].lerp_(weight.detach().to(torch.float32), new)
        for name, statistic in self._statistics.items():
            self._averages[name].copy_(statistic)
        self.updates += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and averages; once more changes them back, to the bit if the weights are float32."""
        for name, tensor in {**self._weights, **self._statistics}.items():
            average = self._averages[name]
            present = tensor.detach().clone()
            tensor.detach().copy_(average)
            average.copy_(present)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The network holds the averages inside the block: for validation and export."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on to the same bits; tensors are not copied."""
        return {"updates": self.updates, "averages": dict(self._averages)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            DataError: it is another network's.
        """
        averages = state["averages"]
        if averages.keys() != self._averages.keys():
            odd = sorted(averages.keys() ^ self._averages.keys())
            raise DataError(f"the averaged weights are another network's: {', '.join(odd[:3])} ({len(odd)} names)")
        for name, average in self._averages.items():
            average.copy_(averages[name])
        self.updates = int(state["updates"])


def _as_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.float32, copy=True)
