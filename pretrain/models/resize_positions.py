"""Images of another size than the model was made for: position embeddings resized on the way, with gradient.

A convolution takes images of any size; learned positions do not. They are interpolated (bicubic, antialiased, as
open_clip does it once when it loads weights of another size), in every forward pass, so that the weights stay those of
the model's own size and each phase of a training improves the same ones. The price is one small interpolation per pass.

Served are open_clip's VisionTransformer and ModifiedResNet, timm's VisionTransformer, and what has no positions
(convolutional nets). Others raise an error that names the tower.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from ...errors import ConfigError


def resized(positions: torch.Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int = 1) -> torch.Tensor:
    """``(prefix + old cells, width) -> (prefix + new cells, width)``, rows of the prefix unchanged.

    Args:
        old, new: rows and columns of the grid.
    """
    if old == new:
        return positions
    grid = positions[prefix:].float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, new, mode="bicubic", antialias=True, align_corners=False)
    cells = grid.flatten(2).squeeze(0).T.to(positions.dtype)
    return torch.cat([positions[:prefix], cells])


def grid_of(visual: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches of an image, where `visual` is open_clip's VisionTransformer."""
    height, width = visual.patch_size  # type: ignore[misc]
    return int(size[0] // height), int(size[1] // width)  # type: ignore[operator]


def vision_positions(visual: Any, size: tuple[int, int]) -> torch.Tensor:
    """Position embedding of an open_clip VisionTransformer for an image of that size, class token first."""
    return resized(visual.positional_embedding, tuple(visual.grid_size), grid_of(visual, size))


def features_at_any_size(visual: Any, pixels: torch.Tensor) -> Any:
    """``visual(pixels)`` at any size that `allow_image_size` has allowed."""
    size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    if isinstance(visual, VisionTransformer) and grid_of(visual, size) != tuple(visual.grid_size):
        name, positions = "positional_embedding", vision_positions(visual, size)
    elif isinstance(visual, ModifiedResNet) and _attended(visual, size) != _attended(visual, _two(visual.image_size)):
        name = "attnpool.positional_embedding"
        old, new = _attended(visual, _two(visual.image_size)), _attended(visual, size)
        positions = resized(visual.attnpool.positional_embedding, old, new)
    else:
        return visual(pixels)
    return torch.func.functional_call(visual, {name: positions}, (pixels,))


def allow_image_size(visual: Any, size: tuple[int, int]) -> None:
    """Make an image tower ready for images of another size than its own; check that it can.

    Call it once per size before the training; timm's transformers are switched to dynamic sizes, which changes nothing
    at their own size.

    Raises:
        ConfigError: it cannot, or the size does not divide into patches.
    """
    if isinstance(visual, VisionTransformer):
        _divides(size, _two(visual.patch_size))
    elif isinstance(visual, ModifiedResNet):
        _divides(size, (32, 32))
    elif isinstance(visual, TimmModel):
        _allow_timm(visual, size)
    elif size != _two(getattr(visual, "image_size", size)):
        raise ConfigError(
            f"phases: the image tower {type(visual).__name__} cannot take images of {size[0]} x {size[1]}"
        )


def _allow_timm(visual: Any, size: tuple[int, int]) -> None:
    from timm.models.vision_transformer import VisionTransformer as TimmTransformer

    trunk = visual.trunk
    patches = getattr(trunk, "patch_embed", None)
    if size == _two(visual.image_size):
        return
    pooled = getattr(visual.head, "pool", None) is not None  # attention pooling with positions of its own
    dynamic = getattr(trunk, "dynamic_img_size", False) is True
    if patches is not None and not pooled and (dynamic or isinstance(trunk, TimmTransformer)):
        from timm.layers.format import Format

        _divides(size, _two(patches.patch_size))
        if not dynamic:
            trunk.dynamic_img_size = True
            patches.strict_img_size, patches.flatten, patches.output_fmt = False, False, Format.NHWC
        return
    fixed = [n for n, p in trunk.named_parameters() if "pos_embed" in n or "position" in n or "relative" in n]
    if fixed or pooled or getattr(patches, "strict_img_size", False):
        raise ConfigError(
            f"phases: the image tower {type(trunk).__name__} takes images of {_two(visual.image_size)} only; use a "
            "model with open_clip's own transformer, timm's VisionTransformer or a convolutional net"
        )


def _attended(visual: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a ModifiedResNet's attention pooling sees."""
    return size[0] // 32, size[1] // 32


def _two(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _divides(size: tuple[int, int], by: tuple[int, int]) -> None:
    if size[0] % by[0] or size[1] % by[1]:
        raise ConfigError(
            f"phases: images of {size[0]} x {size[1]} do not divide into patches of {by[0]} x {by[1]} pixels"
        )
