"""CLIP's loss: among all captions of the batch find the image's own, and the other way round.

Source: Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, figure 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..features import Features
from ..world import World
from .in_batch_softmax import in_batch_softmax
from .known_gradient import known_gradient
from .logit_scale import MAX_LOGIT_SCALE as MAX_LOGIT_SCALE  # its first home
from .logit_scale import clamp
from .pairs import Pairs, captioned, in_float32, texts_of


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
    """CLIP's loss of a batch: local images against the captions of all processes.

    A bias on the logits is the same for all candidates, so it cancels: it may be there and gets a gradient of 0.

    Args:
        groups: consecutive runs of the batch within which pairs are compared (`pairs.py`).
        chunk: images compared at a time; memory is ``chunk x captions`` floats, about three times.
    """

    name = "clip"

    def __init__(self, groups: int = 1, chunk: int = 1024) -> None:
        self.groups, self.chunk = groups, chunk

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """``{"clip": part}``, a mean over the captioned samples of the whole batch."""
        pairs = Pairs(features, world, self.groups, self.chunk)
        image, text = in_float32(features.image), in_float32(texts_of(features))
        loss = in_batch_softmax(pairs, image, text, in_float32(features.scale))
        if features.bias is not None:
            loss = known_gradient(
                loss, [(loss, torch.ones_like(loss)), (features.bias, torch.zeros_like(features.bias))]
            )
        return {self.name: loss}

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """This process's captioned samples."""
        return {self.name: captioned(features)}

    def loss(self, image: torch.Tensor, text: torch.Tensor, model: nn.Module) -> torch.Tensor:
        """Of one process's batch, with the model's logit scale."""
        return contrastive_loss(image, text, model.logit_scale.exp())  # type: ignore[operator, union-attr]

    def after_step(self, model: nn.Module) -> None:
        """See `logit_scale.clamp`."""
        clamp(model)
