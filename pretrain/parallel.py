"""One network on several processes: DDP, where each holds all weights, or FSDP2, where each holds a part.

Objectives sum over processes, and so must gradients; both wrappers average by default. FSDP2 is told to sum. DDP is
not: the step multiplies the loss by the number of processes instead (`Wrapped.factor`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import nn

from ..errors import ConfigError
from .world import World

Sharding = Literal["ddp", "fsdp"]
BLOCKS = ("ResidualAttentionBlock", "Block", "Bottleneck", "ConvNeXtBlock", "BasicBlock", "ParallelScalingBlock")
"""Class names of the repeated parts of open_clip's and timm's networks: what FSDP shards one by one."""


class Wrapped:
    """A network, ready to be called by all processes together.

    Attributes:
        module: what is called.
        network: the network inside (the same object under FSDP2, which shards in place).
        factor: on the loss before `backward`, so that gradients are summed over processes.
        sharded: whether parameters are spread over processes.
    """

    def __init__(self, network: nn.Module, world: World, sharding: Sharding, device: torch.device) -> None:
        self.network = network
        self.module = network
        self.factor = 1.0
        self.sharded = False
        if world.size == 1:
            return
        if device.type == "cuda" and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
            network = self.network = self.module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        if sharding == "fsdp":
            self._shard(network)
            self.sharded = True
        else:
            ids = [device.index or 0] if device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True)
            self.factor = float(world.size)

    @staticmethod
    def _shard(network: nn.Module) -> None:
        from torch.distributed.fsdp import fully_shard

        blocks = [m for m in network.modules() if type(m).__name__ in BLOCKS]
        if not blocks:
            raise ConfigError("sharding is fsdp, but this model has no repeated blocks to shard; use ddp")
        for block in (*blocks, network):
            sharded: Any = fully_shard(block)
            sharded.set_gradient_divide_factor(1.0)

    @contextmanager
    def without_exchange(self, on: bool) -> Iterator[None]:
        """Context of a backward pass whose gradients are not exchanged yet (`on`), because more of them follow."""
        if not on or (self.module is self.network and not self.sharded):
            yield
        elif self.sharded:
            network: Any = self.network
            network.set_requires_gradient_sync(False)
            try:
                yield
            finally:
                network.set_requires_gradient_sync(True)
        else:
            with cast(Any, self.module).no_sync():
                yield
