"""Weights of a module: read from a local checkpoint, and told apart by their content."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TypeVar

import torch
from torch import nn
from torch.utils.serialization import config as reading

from ...errors import ConfigError
from ...shards import storage
from .architecture import ModelSpec, build

M = TypeVar("M", bound=nn.Module)


def load_module(spec: ModelSpec, weights: str) -> nn.Module:
    """The module of a spec, filled from a local file in any form that open_clip loads; in training mode, on the CPU.

    Raises:
        ConfigError: as `build` and `load_weights`.
    """
    # Every form but big_vision's arrays is loaded with all its keys or not at all.
    seed = 0 if weights.endswith((".npz", ".npy")) else None
    return load_weights(build(spec, seed), weights, spec.name)


def load_weights(module: M, weights: str, name: str) -> M:
    """Fill a module from a local file in any form that open_clip loads; returns the module. The file is mapped, where
    its form allows it, and copied: memory holds the weights once, and does not change when the file does.

    Args:
        weights: path of the file.
        name: of the architecture, for messages.

    Raises:
        ConfigError: the file cannot be read, or holds weights of another architecture.
    """
    import open_clip

    try:
        path = storage.local(weights)
        with reading.patch("load.mmap", zipfile.is_zipfile(path)):  # type: ignore[attr-defined]  # in this thread
            open_clip.load_checkpoint(module, path)  # type: ignore[arg-type]
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"{weights} does not hold the weights of {name}: {reason}") from error
    return module


def weights_digest(module: nn.Module) -> str:
    """32 hexadecimal characters over names, types, shapes and values of all weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
