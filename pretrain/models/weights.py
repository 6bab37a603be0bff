"""Weights of a module: read from a local checkpoint, and told apart by their content."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import torch
from torch import nn

from ...errors import ConfigError
from ...shards import storage

M = TypeVar("M", bound=nn.Module)


def load_weights(module: M, weights: str, name: str) -> M:
    """Fill a module from a local file in any form that open_clip loads; returns the module.

    Args:
        weights: path of the file.
        name: of the architecture, for messages.

    Raises:
        ConfigError: the file cannot be read, or holds weights of another architecture.
    """
    import open_clip

    try:
        open_clip.load_checkpoint(module, storage.local(weights))  # type: ignore[arg-type]
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"{weights} does not hold the weights of {name}: {reason}") from error
    return module


def weights_digest(module: nn.Module) -> str:
    """32 hexadecimal characters over names, types, shapes and values of all weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
