"""One network on several processes: DDP, where each holds all weights, or FSDP2, where each holds a part.

Objectives sum over processes, and so must gradients; both wrappers average by default. FSDP2 is told to sum. DDP is
not: the step multiplies the loss by the number of processes instead (`Wrapped.factor`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import nn

from ...errors import ConfigError
from .batch_norm import shared_statistics
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

    def __init__(
        self, network: nn.Module, world: World, sharding: Sharding, device: torch.device, unreached: bool = False
    ) -> None:
        """
        Args:
            unreached: whether some trainable weights may be left out of the outputs' making; DDP then looks for them
                in every step. They get no gradient, as with one process.

        Raises:
            ConfigError: fsdp, and nothing in the network that could be sharded one by one.
        """
        self.network = network
        self.module = network
        self.factor = 1.0
        self.sharded = False
        self._alone: list[nn.Parameter] = []  # parameters that FSDP does not take
        if world.size == 1:
            return
        shared_statistics(network)
        if sharding == "fsdp":
            self._shard(network)
            self.sharded = True
        else:
            ids = [device.index or 0] if device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(
                network,
                device_ids=ids,
                gradient_as_bucket_view=True,
                find_unused_parameters=unreached,
            )
            self.factor = float(world.size)

    def _shard(self, network: nn.Module) -> None:
        from torch.distributed.fsdp import fully_shard

        blocks = [m for m in network.modules() if type(m).__name__ in BLOCKS]
        if not blocks:
            raise ConfigError("sharding is fsdp, but this model has no repeated blocks to shard; use ddp")
        self._alone = [p for p in network.parameters() if p.ndim == 0]
        for block in blocks:
            fully_shard(block)
        fully_shard(network, ignored_params=set(self._alone))
        for module in (*blocks, network):
            sharded: Any = module
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(dist.get_backend() == "gloo")  # which cannot scale as it sums

    def finish_gradients(self) -> None:
        """After the last backward pass of a step: exchange what no wrapper exchanges."""
        for p in self._alone:
            if p.grad is not None:
                dist.all_reduce(p.grad)

    def clip(self, largest: float) -> torch.Tensor:
        """Bring the norm of the gradient of all weights down to `largest` (infinity: measure only); returns the norm
        before, the same in all processes."""
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        if not self.sharded:
            return nn.utils.clip_grad_norm_(parameters, largest)
        kinds = [
            [p for p in parameters if p.ndim],
            [p for p in parameters if not p.ndim],
        ]  # sharded ones and the others
        norms = [nn.utils.get_total_norm([cast(torch.Tensor, p.grad) for p in some]) for some in kinds if some]
        norm = torch.stack([cast(Any, n).full_tensor() if hasattr(n, "full_tensor") else n for n in norms]).norm()
        for some in kinds:
            nn.utils.clip_grads_with_norm_(some, largest, norm)
        return norm

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
