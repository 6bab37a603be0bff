"""Which parameter gets which weight decay and which share of the rate: by its name.

Names are those of open_clip's and timm's modules, wherever they lie in the network that is trained (``towers.model.``,
a wrapper's ``module.``). Weight decay follows open_clip's rule. Layers are counted per tower from the embeddings (0)
over the blocks to everything behind the last block, so that a layer-wise decay of the rate leaves the output alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from .optimizer_options import Muon, Optimizer

Tower = Literal["image", "text", "head", "shared"]

_NORMS = ("bn", "ln", "norm")
_WRAPPERS = ("module", "_orig_mod", "towers", "tower", "model")
_HEADS = ("head", "heads", "projections", "classifier")
_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|stages|layers|layer)\.?(\d+)(?:\.(?:blocks\.)?(\d+)(?=\.))?")
_EMBEDS = ("embed", "stem", "conv", "bn", "ln_pre", "norm_pre", "cls_", "reg_", "class_", "patch_", "pos_", "position")
_EMBEDDINGS = ("embed", "embedding", "embeddings")


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay applies to a parameter, by its name and number of axes."""
    parts = name.split(".")
    normalises = any(part.startswith(_NORMS) for part in parts)
    return parameter.ndim >= 2 and not normalises and "bias" not in name and parts[-1] != "logit_scale"


def tower_of(name: str) -> tuple[Tower, str]:
    """A parameter's tower, and its name within the tower. Scale and bias of cosines are ``shared``."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    if parts[0] in _HEADS:
        return "head", ".".join(parts)
    if parts[0] == "visual":
        return "image", ".".join(parts[1:])
    if parts[0].startswith("logit_"):
        return "shared", parts[0]
    return "text", ".".join(parts[1:] if parts[0] == "text" else parts)


def block_of(name: str) -> tuple[int, int] | None:
    """Stage and block (or block and 0) that a parameter lies in, by its name within the tower; None if in none."""
    found = _BLOCK.search(name)
    if found is None:
        return None
    stage, block = found.groups()
    staged = bool(re.search(r"(?:stages|layers|layer)\.?\d", found.group()))
    return int(stage), int(block or 0) if staged else 0


def layers_of(names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Layer of each parameter of one tower and the number of the last layer, both from 0, by names within the tower.

    0 is the embeddings or the stem, then one per block, then everything behind the blocks.
    """
    names = list(names)
    blocks = {name: None if name.startswith("text_decoder") else block_of(name) for name in names}  # CoCa's: an output
    order = {block: i + 1 for i, block in enumerate(sorted({b for b in blocks.values() if b is not None}))}
    last = len(order) + 1
    layers = {}
    for name, block in blocks.items():
        if block is not None:
            layers[name] = (order[block], last)
        else:
            embeds = any(part.startswith(_EMBEDS) or part.endswith(_EMBEDDINGS) for part in name.split("."))
            layers[name] = (0 if embeds else last, last)
    return layers


def rate_factors(names: Iterable[str], options: Optimizer) -> dict[str, float]:
    """Factor on the rate of each parameter of a network."""
    factors: dict[str, float] = {}
    places = {name: tower_of(name) for name in names}
    own = {"image": options.image_lr, "text": options.text_lr, "head": options.head_lr, "shared": 1.0}
    decay = {"image": options.image_layer_decay, "text": options.text_layer_decay}
    layers = {tower: layers_of(short for t, short in places.values() if t == tower) for tower in decay}
    for name, (tower, short) in places.items():
        factors[name] = own[tower]
        if tower in decay:
            layer, last = layers[tower][short]
            factors[name] *= decay[tower] ** (last - layer)
    return factors


def orthogonal_pieces(name: str, parameter: torch.Tensor) -> int:
    """How many matrices Muon finds in a parameter: 0 = it is left to AdamW. Embeddings, heads and what is not inside a
    tower's blocks are."""
    tower, short = tower_of(name)
    if parameter.ndim < 2 or tower in ("head", "shared") or block_of(short) is None or not decays(name, parameter):
        return 0
    if parameter[0].numel() == 1:  # a column vector in disguise
        return 0
    joint = short.endswith(("in_proj_weight", "qkv.weight"))
    return 3 if joint and parameter.shape[0] == 3 * parameter.shape[1] else 1


def parameter_groups(network: nn.Module, options: Optimizer, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, for torch's optimizers.

    Those that do not decay come first, as in open_clip, whose trainer can thus load our optimizer's state. Each group
    has a ``lr_scale``; see `optimizer.set_rate`.
    """
    named: Mapping[str, nn.Parameter] = {n: p for n, p in network.named_parameters() if p.requires_grad}
    factors = rate_factors(named, options)
    groups: dict[tuple[bool, float, int, bool], list[nn.Parameter]] = {}
    for name, p in named.items():
        pieces = orthogonal_pieces(name, p) if isinstance(options, Muon) else 0
        sharded = hasattr(p, "device_mesh")  # torch's fused optimizers take sharded and whole ones in turn only
        groups.setdefault((decays(name, p), factors[name], pieces, sharded), []).append(p)
    made = []
    for (decaying, factor, pieces, _), parameters in sorted(groups.items(), key=lambda item: item[0]):
        group = {"params": parameters, "weight_decay": weight_decay if decaying else 0.0, "lr_scale": factor}
        if pieces:
            group |= {"orthogonal": True, "pieces": pieces}
        made.append(group)
    return made
