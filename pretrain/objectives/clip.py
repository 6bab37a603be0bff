"""CLIP's loss: among all captions of the batch find the image's own, and the other way round.

Source: Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, figure 3.
"""

from __future__ import annotations

import torch

from ..features import Features
from ..processes.world import World
from .in_batch_softmax import in_batch_softmax
from .known_gradient import known_gradient
from .pairs import Pairs, captioned, in_float32, texts_of


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
