"""Weights and optimizer moments as whole tensors, whatever wraps the network; and back.

What is saved must not tell how it was trained: a state of four processes under FSDP2 is the state of one process, with
the same names. DDP and torch.compile wrappers are taken off; under FSDP2 each sharded tensor is put together, one at a
time, and only process 0 keeps it, in CPU memory. The optimizer's state goes by the names of parameters, because sharded
ones form groups of their own; a moment is told by torch's rule that it has its parameter's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from ..processes.world import ALONE, World


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
        "optimizer": _by_name(whole(optimizer.state_dict(), keep), optimizer, unwrapped(model)),
        "ema": None if average is None else whole(dict(average.state_dict()), keep),
    }
    return state if keep else {}


def load_whole_state(
    state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, average: Stateful | None = None
) -> None:
    """Fill a network, its optimizer and its average from what `whole_state` returned; every process loads all of it."""
    network = unwrapped(model)
    network.load_state_dict(_like(state["weights"], network.state_dict()))
    optimizer.load_state_dict(_numbered(state["optimizer"], optimizer, network))
    if average is not None:
        average.load_state_dict(_like(state["ema"], average.state_dict()))


def _names(optimizer: torch.optim.Optimizer, network: nn.Module) -> list[str]:
    """Names of the parameters in the order in which the optimizer's state numbers them."""
    known = {id(p): name for name, p in network.named_parameters()}
    return [known[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _by_name(state: Mapping[str, Any], optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Any]:
    """An optimizer's state by the names of parameters: their groups differ between one process and FSDP's several."""
    names = _names(optimizer, network)
    groups = {}
    for group in state["param_groups"]:
        options = {key: value for key, value in group.items() if key != "params"}
        groups |= {names[number]: options for number in group["params"]}
    return {"state": {names[number]: entry for number, entry in state["state"].items()}, "groups": groups}


def _numbered(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Any]:
    """What `_by_name` gave as this optimizer's own state."""
    names = _names(optimizer, network)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        number: {key: _part_of(value, parameters[number]) for key, value in saved["state"][name].items()}
        for number, name in enumerate(names)
        if name in saved["state"]
    }
    groups, first = [], 0
    for group in optimizer.param_groups:
        numbers = list(range(first, first + len(group["params"])))
        first += len(numbers)
        groups.append({**saved["groups"][names[numbers[0]]], "params": numbers})
    return {"state": moments, "param_groups": groups}


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
