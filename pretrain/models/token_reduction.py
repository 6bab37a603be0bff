"""Fewer tokens per sample: some of an image's patches, some of a caption's words.

Which ones is a function of (seed, step, the sample's place in the batch), not of a generator: the same on any number of
processes and micro-batches, and in both passes of a step that caches features. Sources: FLIP (Li et al., CVPR 2023) for
patches, CLIPA (Li et al., NeurIPS 2023) for captions.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from ...errors import ConfigError
from .. import streams

_ODD = np.uint64(0x9E3779B97F4A7C15)


def patches_kept(patches: int, keep: float) -> int:
    """How many of an image's patches are looked at: ``max(1, floor(patches * keep))``."""
    return max(1, int(patches * keep + 1e-9))


def kept_patches(seed: int, step: int, first: int, count: int, patches: int, keep: float) -> np.ndarray | None:
    """Patches that the samples ``first..first + count - 1`` of a step's batch show, ``(count, k) int64``, ascending.

    Args:
        patches: of an image, without class and other extra tokens.
        keep: share of them, see `patches_kept`; 1 gives None, which stands for all.
    """
    k = patches_kept(patches, keep)
    if k == patches:
        return None
    drawn = streams.uniform(streams.key(seed, "patches", step), first, first + count, patches)
    return np.sort(np.argpartition(drawn, k - 1, axis=1)[:, :k], axis=1)


class PatchSelection(nn.Module):
    """Stands where a vision transformer has its patch dropout; passes on the patches that it is told to.

    Attributes:
        prefix: tokens before the patches, which always pass.
        kept: ``(b, k) int64`` patches of each image of the next forward pass; None = all.
    """

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, prefix + patches, width) -> (b, prefix + k, width)``."""
        if self.kept is None or not self.training:
            return x
        at = (self.kept + self.prefix).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return torch.cat([x[:, : self.prefix], x.gather(1, at)], 1)


def install_patch_selection(visual: Any) -> PatchSelection:
    """Put a `PatchSelection` into an image tower; weights and their names stay as they are.

    Raises:
        ConfigError: the tower has no patches that could be left out.
    """
    from timm.models.vision_transformer import VisionTransformer as TimmTransformer

    if isinstance(visual, VisionTransformer):
        selection = PatchSelection(prefix=1)
        visual.patch_dropout = selection  # type: ignore[assignment]
        return selection
    inner = visual.trunk if isinstance(visual, TimmModel) else visual
    if isinstance(inner, TimmTransformer):
        selection = PatchSelection(prefix=inner.num_prefix_tokens)
        inner.patch_drop = selection  # type: ignore[assignment]
        return selection
    raise ConfigError(f"phases: patch_keep needs a vision transformer; the image tower is a {type(inner).__name__}")


def shorten(
    tokens: np.ndarray, ends: np.ndarray, length: int, how: Literal["truncate", "random", "block"], seed: int, step: int
) -> np.ndarray:
    """Captions of at most `length` tokens, ``(n, context_length) int64 -> (n, length)``.

    The first token (the start mark) and the end mark stay; of the tokens between, as many as there is room for, in
    order: the first ones, random ones, or neighbours from a random place. What is drawn depends on seed, step and the
    caption itself, so equal captions stay equal wherever they lie.

    Args:
        ends: column of each caption's end mark, ``(n,)``; behind it is padding.
    """
    context_length = tokens.shape[1]
    if length >= context_length:
        return tokens
    room = length - 2
    body = np.maximum(ends - 1, 0)[:, None]  # tokens between the marks
    excess = np.maximum(body - room, 0)
    column = np.arange(context_length)
    if how == "random":
        inside = (column >= 1) & (column <= body)
        order = np.where(inside, _draws(tokens, seed, step), 2.0).argsort(1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(column, order.shape), 1)
        keep = np.where(inside, rank < room, column <= ends[:, None])
    else:
        skipped = np.zeros_like(excess)
        if how == "block":
            skipped = (_draws(tokens, seed, step)[:, :1] * (excess + 1)).astype(np.int64)
        keep = (column == 0) | ((column > skipped) & (column <= skipped + room) & (column <= body))
        keep |= column == ends[:, None]
    keep |= column > ends[:, None]  # padding, of which the sort below leaves what fits
    first = np.argsort(~keep, axis=1, kind="stable")[:, :length]
    return np.take_along_axis(tokens, first, 1)


def _draws(tokens: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Uniform numbers in [0, 1), ``(n, context_length)``, from each caption's own bits (splitmix64)."""
    key = np.uint64(streams.key(seed, "captions", step))
    columns = np.arange(1, tokens.shape[1] + 1, dtype=np.uint64)
    weights = _mixed(columns * _ODD)
    with np.errstate(over="ignore"):
        own = (tokens.astype(np.uint64) * weights).sum(1, dtype=np.uint64)
        bits = _mixed(_mixed(own ^ key)[:, None] + columns * _ODD)
    return (bits >> np.uint64(11)) * 2.0**-53


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
