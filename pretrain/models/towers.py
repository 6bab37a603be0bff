"""A model's two towers, run by the shortest route that gives the same numbers.

Three things are left out, none of which can change a feature:

* padding: in a causal text tower that is pooled at the end mark nothing behind that mark is ever looked at, so a batch
  is cut to its longest caption;
* the last block's other rows: only the pooled row (the class token, the end mark) leaves a tower, so in the last block
  only that row needs a query, an output projection and an MLP. Of a 3-layer tower that saves over a quarter, of a
  12-layer tower 7 %;
* repetition: callers pass distinct captions only.

Each is used where the tower is built so that it holds (open_clip's transformers, CLIP's pooling); other towers (timm,
ResNet, SigLIP's bidirectional text, CoCa) run through their own `encode_image` and `encode_text`. The price is that
this file knows open_clip's module names, which are also the names in every checkpoint; tests hold the routes together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer
from torch import nn

from ..data.preprocess import Preprocess
from .resize_positions import features_at_any_size, vision_positions
from .short_captions import text_features
from .text_tower import text_ends, text_tower


class ImageTower(nn.Module):
    """uint8 images -> L2-normalised float32 features, by a module that takes normalised pixels.

    Attributes:
        model: its parameters are this module's.
    """

    shift: torch.Tensor
    factor: torch.Tensor

    def __init__(self, model: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (preprocess.mean, preprocess.std))
        self.register_buffer("shift", 255 * mean, persistent=False)
        self.register_buffer("factor", 1 / (255 * std), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.shift.device

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, 3, h, w) uint8`` on any device -> ``(b, d) float32``, L2-normalised."""
        return F.normalize(self.image_features(images), dim=-1)

    def image_features(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, 3, h, w) uint8`` on any device -> ``(b, d) float32``, as the tower gives them."""
        pixels = images.to(self.device, non_blocking=True).float().sub_(self.shift).mul_(self.factor)
        return self._features(pixels).float()

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels)


class Towers(ImageTower):
    """uint8 images and token ids -> L2-normalised float32 features.

    Attributes:
        model: an open_clip model; its parameters are this module's.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess, whole_blocks: bool = False) -> None:
        """
        Args:
            whole_blocks: run every block as a whole, because something hooks into it (FSDP).
        """
        super().__init__(model, preprocess)
        self._text = text_tower(model)
        self._short_vision = not whole_blocks and pools_class_token(model.visual)  # type: ignore[arg-type]
        self._short_text = not whole_blocks and self._text is not None and _plain(self._text.transformer)

    @property
    def truncates(self) -> bool:
        """Whether captions are cut to the longest of the batch."""
        return self._text is not None

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._short_vision:
            return _class_token_route(self.model.visual, pixels)
        features = features_at_any_size(self.model.visual, pixels)
        return features[0] if isinstance(features, tuple) else features  # CoCa's tower also returns its tokens

    def encode_texts(self, tokens: np.ndarray, length: int | None = None) -> torch.Tensor:
        """``(b, context_length) int64`` -> ``(b, d) float32``, L2-normalised.

        Args:
            length: what to cut the batch to, where `truncates`; it must hold every end mark. None: the longest's.
        """
        if self._text is None:
            features = text_features(self.model, torch.from_numpy(tokens).to(self.device))
        else:
            features = self._causal_route(self._text, tokens, length)
        return F.normalize(features.float(), dim=-1)

    def text_lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Columns of each caption that count, ``(b,) int64``: up to its end mark, or all."""
        if self._text is None:
            return np.full(len(tokens), tokens.shape[1])
        return text_ends(self._text, tokens) + 1

    def _causal_route(self, tower: Any, tokens: np.ndarray, length: int | None) -> torch.Tensor:
        end = text_ends(tower, tokens)  # from numpy, so that a GPU is not waited for
        length = length or int(end.max()) + 1
        ids = torch.from_numpy(np.ascontiguousarray(tokens[:, :length])).to(self.device)
        at = torch.from_numpy(end).to(self.device)
        blocks = tower.transformer.resblocks
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]
        mask = tower.attn_mask[:length, :length]
        if self._short_text:
            for block in blocks[:-1]:
                x = block(x, attn_mask=mask)
            behind = torch.arange(length, device=self.device) > at[:, None]
            pooled = _pooled_block(blocks[-1], x, at, behind)
        else:
            pooled = _rows(tower.transformer(x, attn_mask=mask), at)
        return _projected(tower.ln_final(pooled), tower.text_projection)


def _plain(transformer: Any) -> bool:
    """Whether the blocks are the standard ones, computed once each (no gradient checkpointing)."""
    return (
        type(transformer) is Transformer
        and transformer.batch_first
        and not transformer.grad_checkpointing
        and all(type(block) is ResidualAttentionBlock for block in transformer.resblocks)
    )


def pools_class_token(visual: nn.Module) -> bool:
    """Whether the vision tower is a plain transformer of which only the class token is used."""
    return (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.output_tokens
        and _plain(visual.transformer)
    )


def _class_token_route(visual: Any, pixels: torch.Tensor) -> torch.Tensor:
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (b, patches, width)
    positions = vision_positions(visual, (pixels.shape[-2], pixels.shape[-1]))
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], 1) + positions
    x = visual.ln_pre(visual.patch_dropout(x))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    return _projected(visual.ln_post(_pooled_block(last, x, 0, None)), visual.proj)


def _rows(x: torch.Tensor, at: torch.Tensor | int) -> torch.Tensor:
    """``x[i, at[i]]``: ``(b, length, width) -> (b, width)``."""
    return x[:, at] if isinstance(at, int) else x[torch.arange(len(x), device=x.device), at]


def _pooled_block(block: Any, x: torch.Tensor, at: torch.Tensor | int, hidden: torch.Tensor | None) -> torch.Tensor:
    """Row ``at`` of a block's output, ``(b, width)``. ``hidden (b, length) bool`` marks rows it must not look at."""
    h = block.ln_1(x)
    attended = block.attn(_rows(h, at).unsqueeze(1), h, h, need_weights=False, key_padding_mask=hidden)[0]
    y = _rows(x, at) + block.ls_1(attended).squeeze(1)
    return y + block.ls_2(block.mlp(block.ln_2(y)))


def _projected(features: torch.Tensor, projection: Any) -> torch.Tensor:
    """Through a matrix, a linear layer, or nothing."""
    if projection is None:
        return features
    return projection(features) if isinstance(projection, nn.Linear) else features @ projection
