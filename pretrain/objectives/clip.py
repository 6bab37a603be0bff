"""CLIP's loss: among all captions of the batch find the image's own, and the other way round.

Source: Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, figure 3.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

MAX_LOGIT_SCALE = math.log(100)


def contrastive_loss(
    image: torch.Tensor,
    text: torch.Tensor,
    scale: torch.Tensor,
    all_image: torch.Tensor | None = None,
    all_text: torch.Tensor | None = None,
    first_row: int = 0,
) -> torch.Tensor:
    """Mean of the two cross entropies of ``logits = scale image . text``.

    Args:
        image, text: L2-normalised features of this process's samples, ``(b, d)``.
        scale: factor on the cosines (not its logarithm).
        all_image, all_text: ``(B, d)`` features of the whole batch when several processes share it; default: the same.
        first_row: row of this process's first sample in the whole batch.
    """
    labels = torch.arange(first_row, first_row + len(image), device=image.device)
    scaled = scale * image
    if all_image is None or all_text is None:
        logits = scaled @ text.T
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    per_image, per_text = scaled @ all_text.T, scale * text @ all_image.T
    return (F.cross_entropy(per_image, labels) + F.cross_entropy(per_text, labels)) / 2


class ClipObjective:
    """Contrastive loss; the logit scale stays in [0, ln 100]."""

    def loss(self, image: torch.Tensor, text: torch.Tensor, model: nn.Module) -> torch.Tensor:
        return contrastive_loss(image, text, model.logit_scale.exp())  # type: ignore[operator, union-attr]

    def after_step(self, model: nn.Module) -> None:
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)  # type: ignore[operator, union-attr]
