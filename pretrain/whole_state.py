"""Weights and optimizer moments as whole tensors, whatever wraps the network; and back.

What is saved must not tell how it was trained: a state of four processes under FSDP2 is the state of one process, with
the same names. DDP and torch.compile wrappers are taken off; under FSDP2 each sharded tensor is put together, one at a
time, and only process 0 keeps it, in CPU memory. The optimizer's state keeps torch's own form (parameters by number),
which is also open_clip's; it is mapped by torch's rule that a moment has its parameter's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from .world import ALONE, World


class Stateful(Protocol):
    """What has a state of tensors: a module, an average of weights."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any: ...


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside DDP's and torch.compile's wrappers; FSDP2 has none."""
    while True:
        inside = getattr(module, "_orig_mod", None)
        if inside is None and isinstance(module, nn.parallel.DistributedDataParallel):
            inside = module.module
        if inside is None:
            return module
        module = inside


def whole_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, world: World = ALONE, average: Stateful | None = None
) -> dict[str, Any]:
    """``{"weights", "optimizer", "ema"}`` of a plain, DDP- or FSDP2-wrapped network; every process must call it.

    Args:
        average: of the weights, or None.

    Returns:
        on process 0 the whole state (where nothing is sharded, the tensors themselves: copy them before the next step);
        on others an empty dictionary.
    """
    keep = world.rank == 0
    state = {
        "weights": whole(dict(unwrapped(model).state_dict()), keep),
        "optimizer": whole(optimizer.state_dict(), keep),
        "ema": None if average is None else whole(dict(average.state_dict()), keep),
    }
    return state if keep else {}


def load_whole_state(
    state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, average: Stateful | None = None
) -> None:
    """Fill a network, its optimizer and its average from what `whole_state` returned; every process loads all of it."""
    network = unwrapped(model)
    network.load_state_dict(_like(state["weights"], network.state_dict()))
    saved = state["optimizer"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        number: {name: _part_of(value, parameters[number]) for name, value in entry.items()}
        for number, entry in saved["state"].items()
    }
    optimizer.load_state_dict({"state": moments, "param_groups": saved["param_groups"]})
    if average is not None:
        average.load_state_dict(_like(state["ema"], average.state_dict()))


def whole(value: Any, keep: bool = True) -> Any:
    """A tree of dictionaries and lists with every sharded tensor put together; other tensors as they are.

    Args:
        keep: whether this process wants them; all processes must ask.
    """
    if isinstance(value, Mapping):
        return {name: whole(item, keep) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [whole(item, keep) for item in value]
    if not _is_sharded(value):
        return value
    full = value.full_tensor()
    return full.cpu() if keep else None


def _like(saved: Any, current: Any) -> Any:
    """`saved`, a tree, with tensors spread over processes where those at the same place in `current` are."""
    if isinstance(saved, Mapping):
        inside = current if isinstance(current, Mapping) else {}
        return {name: _like(value, inside.get(name)) for name, value in saved.items()}
    return _part_of(saved, current)


def _part_of(value: Any, like: Any) -> Any:
    """This process's part of a whole tensor, if it belongs to a sharded one of the same shape."""
    if not _is_sharded(like) or not torch.is_tensor(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    place = like.device_mesh.device_type
    return distribute_tensor(value.to(place), like.device_mesh, like.placements, src_data_rank=None)


def _is_sharded(value: Any) -> bool:
    if not torch.is_tensor(value) or type(value) in (torch.Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)
