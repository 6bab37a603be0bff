"""Features whose beginnings are features too: the same loss once more on prefixes of them, L2-normalised again.

A user of the model can then keep the first 64 of 512 numbers, say. Source: Kusupati et al., "Matryoshka representation
learning", NeurIPS 2022, equation 1. The price is one more contrastive loss per length, at that length's share of the
arithmetic; the towers run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from ...errors import ConfigError
from ..features import Features
from ..processes.world import World
from .base import Counts, Objective
from .pairs import in_float32, present, texts_of


class MatryoshkaObjective:
    """A contrastive loss of whole features, and of prefixes.

    Args:
        inner: the loss; its terms keep their names, those of a prefix get its length behind: ``clip_64``.
        dims: lengths of the prefixes.
        weights: of each prefix's loss; None = 1. The whole features' weight is 1.
    """

    def __init__(self, inner: Objective, dims: Sequence[int], weights: Sequence[float] | None = None) -> None:
        self.inner, self.dims = inner, tuple(dims)
        self.weights = (1.0,) * len(self.dims) if weights is None else tuple(weights)

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """The inner terms, and for every prefix its own."""
        image, text = features.image, present(texts_of(features), features.captioned)
        if self.dims and max(self.dims) >= image.shape[1]:
            raise ConfigError(
                f"matryoshka: {max(self.dims)} is not a prefix of the model's {image.shape[1]} numbers; give less"
            )
        terms = dict(self.inner.terms(features, world))
        for dim, weight in zip(self.dims, self.weights, strict=True):
            prefixes = [F.normalize(in_float32(side[:, :dim]), dim=-1) for side in (image, text)]
            shorter = replace(features, image=prefixes[0], text=prefixes[1])
            for name, term in self.inner.terms(shorter, world).items():
                terms[f"{name}_{dim}"] = weight * term
        return terms

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """The inner objective's."""
        return self.inner.counts(features) if isinstance(self.inner, Counts) else {}
