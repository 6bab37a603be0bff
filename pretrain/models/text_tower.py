"""Which text towers are causal and pooled at the end mark, and where that mark is: what padding does not change."""

from __future__ import annotations

from typing import Any

import numpy as np
from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import nn


def text_tower(model: nn.Module) -> Any:
    """The causal text tower that is pooled at the end mark, or None if the model's is of another kind."""
    if type(model) is CLIP:
        tower: Any = model  # CLIP holds the parts of its text tower itself
    elif type(model) is CustomTextCLIP and type(model.text) is TextTransformer:
        tower = model.text
    else:
        return None
    causal = tower.attn_mask is not None and getattr(tower, "cls_emb", None) is None
    return tower if causal and _pool_type(tower) in ("argmax", "eos") else None


def _pool_type(tower: Any) -> str:
    return tower.text_pool_type if hasattr(tower, "text_pool_type") else tower.pool_type


def text_ends(tower: Any, tokens: np.ndarray) -> np.ndarray:
    """Column of each caption's end mark, ``(b,) int64``, as the tower's pooling finds it."""
    if _pool_type(tower) == "argmax":
        return tokens.argmax(1)
    eos = tower.text_eos_id if hasattr(tower, "text_eos_id") else tower.eos_id
    return (tokens == eos).argmax(1)
