"""Captions of fewer tokens than the text tower has positions for, where `towers.py` has no route of its own: SigLIP's
bidirectional tower, CoCa's, Hugging Face's. Positions and the causal mask are cut to the captions' length.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer

from ...errors import ConfigError
from .text_tower import text_tower


def text_features(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """``model.encode_text(ids)``, ``(b, length) int64 -> (b, d)``, at any length that `allow_text_length` allows."""
    length = ids.shape[1]
    text = getattr(model, "text", None)
    if type(model) is CustomTextCLIP and type(text) is TextTransformer and text.cls_emb is None:
        mask = text.attn_mask
        if mask is not None and length < len(mask):
            return torch.func.functional_call(text, {"attn_mask": mask[:length, :length]}, (ids,))
    return model.encode_text(ids)


def allow_text_length(model: Any, length: int) -> None:
    """Check that a text tower takes captions of `length` tokens.

    Raises:
        ConfigError: it takes its own length only, or fewer tokens.
    """
    most = getattr(getattr(model, "text", model), "context_length", None) or getattr(model, "context_length", length)
    if length > most:
        raise ConfigError(f"phases: captions of {length} tokens; the model takes {most}")
    if length < most and type(model) is CLIP and text_tower(model) is None:
        raise ConfigError(
            f"phases: this text tower takes captions of {most} tokens only; set `custom_text: true` in "
            "the model's config"
        )
