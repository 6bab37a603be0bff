"""Floating-point operations of a training, counted once, and what the hardware could do at most.

A copy of the network on torch's meta device goes forwards and backwards: shapes and operators without numbers, so the
count takes no memory, touches no random state and is exact for matrix products, convolutions and attention (a multiply
and an add are two operations). Locked towers, whose gradients nobody needs, come out cheaper, as they are. What
gradient checkpointing or cached features compute a second time does not count: MFU asks what the model needs
(Chowdhery et al., PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from ..precision import Precision

_TERA = 1e12
# Dense operations per second by the makers' data sheets: half precision, TF32 (where there is none: fp32), fp32.
_PEAKS: tuple[tuple[str, float, float, float], ...] = (
    (r"B200|GB200", 2250, 1125, 75),
    (r"H100 PCIe", 756, 378, 51),
    (r"H100 NVL", 835, 417, 60),
    (r"H100|H200|GH200|H800", 989, 494, 67),
    (r"A100|A800", 312, 156, 19.5),
    (r"A40\b|RTX A6000", 150, 75, 37),
    (r"A30\b", 165, 82, 10.3),
    (r"A10G", 70, 35, 31),
    (r"A10\b", 125, 62, 31),
    (r"L40S", 362, 183, 92),
    (r"L40\b|RTX 6000 Ada", 181, 90, 91),
    (r"L4\b", 121, 60, 30),
    (r"V100", 125, 15.7, 15.7),
    (r"T4\b", 65, 8.1, 8.1),
    (r"RTX 5090", 209, 105, 105),
    (r"RTX 4090", 165, 83, 83),
    (r"RTX 3090", 71, 36, 36),
    (r"MI300X", 1307, 654, 163),
    (r"MI250", 181, 48, 48),
)


def peak_flops(device_name: str, precision: Precision, tf32: bool = False) -> float | None:
    """Operations per second that a GPU could do at most; None for one that is not in the table, and for CPUs.

    Args:
        device_name: as `torch.cuda.get_device_name` gives it.
        tf32: whether fp32 products may be rounded.
    """
    for pattern, half, tensor, single in _PEAKS:
        if re.search(pattern, device_name):
            return _TERA * ({"fp32": tensor if tf32 else single}.get(precision, half))
    return None


def network_flops(network: nn.Module, size: tuple[int, int], samples: int, tokens: np.ndarray | None = None) -> float:
    """Of one sample's part of a training step, forwards and backwards, measured on the shapes of one batch.

    Args:
        network: called with ``(b, 3, h, w) uint8`` pictures and ``(m, context) int64`` tokens or None, and returning
            tensors by name.
        size: height and width of the pictures.
        samples: of the batch, b.
        tokens: of its distinct captions, m; their lengths count, because towers leave padding out.
    """
    pictures = torch.empty((samples, 3, *size), dtype=torch.uint8, device="meta")
    return _count(_meta(network), pictures, tokens) / samples


def _meta(network: nn.Module) -> nn.Module:
    """A copy without numbers; parts that are not registered as modules or buffers follow as well."""
    memo: dict[int, Any] = {}
    for tensor in _tensors(network):
        memo[id(tensor)] = _empty_like(tensor)
    return copy.deepcopy(network, memo)


def _tensors(network: nn.Module) -> Iterable[torch.Tensor]:
    for module in network.modules():
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if torch.is_tensor(value):
                yield value


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _count(network: nn.Module, pictures: torch.Tensor, tokens: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        out = network(pictures, tokens)
        learned = [t.sum() for t in out.values() if t.requires_grad]
        if learned:
            torch.stack(learned).sum().backward()
    return counter.get_total_flops()
