"""Small trained heads over an embedding, read from a file of weights: linear layers, with or without ReLU between.

LAION's aesthetic predictor v2 has five layers and no activation between them: it is one affine map, and is collapsed to
one vector and a bias in float64 (within 1e-6 of the layers one by one, for a thousandth of the operations). Files are
read without running anything that is in them: safetensors, PyTorch state dicts with ``weights_only``, or ``.npz``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError
from ..shards import storage
from .directions import unit_blocks

Activation = Literal["none", "relu"]


@dataclass(frozen=True)
class Head:
    """Layers from an embedding to one number.

    Attributes:
        layers: ``(weight (out, in) float64, bias (out,) float64)`` in order; one layer when there is no activation.
        stored: layers in the file.
    """

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    stored: int

    @property
    def dimensions(self) -> int:
        """Length of the embeddings that it takes."""
        return self.layers[0][0].shape[1]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """``(n,) float32`` of ``(n, d)`` embeddings, made unit rows first; a zero row stays zero, NaN gives NaN."""
        out = np.empty(len(rows), np.float32)
        for where, block, length in unit_blocks(rows):
            values = self._narrow(block) if len(self.layers) == 1 else self._deep(block)
            out[where] = np.where(np.isnan(length), np.nan, values)
        return out

    def _narrow(self, block: np.ndarray) -> np.ndarray:
        """One affine map, every row summed on its own."""
        (weight, bias), *_ = self.layers
        return np.einsum("ij,j->i", block, weight[0]) + bias[0]

    def _deep(self, block: np.ndarray) -> np.ndarray:
        """ReLU between layers, none after the last."""
        for place, (weight, bias) in enumerate(self.layers):
            block = block @ weight.T + bias
            if place < len(self.layers) - 1:
                np.maximum(block, 0, out=block)
        return block[:, 0]


def load_head(path: str, activation: Activation) -> Head:
    """Read a head.

    Args:
        path: ``.safetensors``, ``.npz``, or a PyTorch state dict. Either ``weight`` and ``bias`` alone, or one pair per
            layer (``layers.0.weight``, ``layers.0.bias``, ``layers.2.weight``...), ordered by the numbers in the names.
        activation: between the layers; ``none`` collapses them.

    Raises:
        ConfigError: the file is missing or unreadable, or its tensors are not layers that end in one number.
    """
    layers = _chain(path, _tensors(path))
    stored = len(layers)
    if activation == "none":
        weight, bias = layers[0]
        for following, more in layers[1:]:
            weight, bias = following @ weight, following @ bias + more
        layers = [(weight, bias)]
    return Head(tuple(layers), stored)


def _tensors(path: str) -> dict[str, np.ndarray]:
    if not storage.exists(path):
        raise ConfigError(f"aesthetic: the weights {path} are not there")
    local = storage.local(path)
    if path.endswith(".npz"):
        try:
            with np.load(local, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"aesthetic: {path} cannot be read as .npz: {error}") from error
    import torch

    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            found: Any = load_file(local)
        else:
            found = torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise types of their own
        reason = str(error).split("\n")[0]
        raise ConfigError(f"aesthetic: {path} is not a state dict of tensors: {reason}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ConfigError(f"aesthetic: {path} is not a state dict of tensors")
    return {str(name): tensor.to(torch.float64).numpy() for name, tensor in found.items()}


def _chain(path: str, tensors: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Layers in order, checked to fit each other."""
    names = [name for name in tensors if name == "weight" or name.endswith(".weight")]
    names.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    known = {name for weight in names for name in (weight, _bias_of(weight))}
    if not names or set(tensors) - known:
        held = ", ".join(sorted(tensors)[:6]) or "nothing"
        raise ConfigError(f"aesthetic: {path} holds {held}; expected `weight` and `bias`, or such a pair per layer")
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    for name in names:
        weight = np.atleast_2d(np.asarray(tensors[name], np.float64))
        bias = np.asarray(tensors.get(_bias_of(name), np.zeros(len(weight))), np.float64).reshape(-1)
        wanted = len(layers[-1][0]) if layers else weight.shape[-1]
        if weight.ndim != 2 or weight.shape[1] != wanted or len(bias) != len(weight):
            raise ConfigError(f"aesthetic: {path}: {name} is {weight.shape}, which does not follow {wanted} values")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ConfigError(f"aesthetic: {path}: {name} or its bias holds NaN or infinity")
        layers.append((weight, bias))
    if len(layers[-1][0]) != 1:
        raise ConfigError(f"aesthetic: {path} ends in {len(layers[-1][0])} values, not one")
    return layers


def _bias_of(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"
