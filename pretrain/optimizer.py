"""AdamW in two groups: matrices decay, everything else does not.

As in open_clip, biases, norms, the logit scale and every other tensor with fewer than 2 axes are not decayed; token,
position and patch embeddings are. Source: Loshchilov & Hutter, "Decoupled weight decay", ICLR 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .recipe import Recipe

_NORMS = ("bn", "ln", "norm")


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay applies to a parameter, by its name and number of axes."""
    parts = name.split(".")
    normalises = any(part.startswith(_NORMS) for part in parts)
    return parameter.ndim >= 2 and not normalises and not parts[-1].endswith("bias") and parts[-1] != "logit_scale"


def adamw(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """The optimizer of a recipe over the model's trainable parameters; the rate is set before every step."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True)
