"""What is trained: towers that share one space, with the heads that a recipe adds.

`forward` is the only way in, so that DDP and FSDP, which hook into it, see every use of every weight. Scale and bias of
the cosines leave through it too, as tensors, and so get their gradient like any feature.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import streams
from .heads import Head
from .towers import Towers

Outputs = dict[str, torch.Tensor]
"""Of one forward pass, whatever the network has of: ``image (b, d)``, ``text (m, d)`` (a row per distinct caption),
``logits (b, classes)``, ``projected0 (b, d')``..., ``scale ()``, ``bias ()``. Features are L2-normalised float32."""


class PairNetwork(nn.Module):
    """An open_clip model and its additional heads.

    Attributes:
        towers: run the model; its parameters are reached through them.
        head: logits over the image features before they are normalised, or None.
        projections: of the image features into the spaces of teachers with another number of dimensions.
        constant: those of ``scale`` and ``bias`` that the loss does not look at: they get no gradient.
    """

    def __init__(
        self,
        towers: Towers,
        width: int,
        classes: int = 0,
        projected: Mapping[int, int] | None = None,
        seed: int = 0,
        constant: Collection[str] = (),
    ) -> None:
        """
        Args:
            width: dimensions of the shared space.
            classes: of a classification head; 0 = none.
            projected: number of a teacher -> dimensions of its image features.
            seed: of the heads' initialisation.
        """
        super().__init__()
        self.constant = frozenset(constant)
        self.towers = towers
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(streams.key(seed, "heads") >> 1)
            self.projections = nn.ModuleDict(
                {str(i): nn.Linear(width, dims, bias=False) for i, dims in (projected or {}).items()}
            )
        self.head = Head(width, classes, seed) if classes else None

    @property
    def model(self) -> nn.Module:
        """The open_clip model: what is published."""
        return self.towers.model

    def forward(self, images: torch.Tensor, tokens: np.ndarray | None) -> Outputs:
        """
        Args:
            images: ``(b, 3, h, w) uint8``.
            tokens: ``(m, length) int64``, distinct captions; None leaves the text tower out.
        """
        raw = self.towers.image_features(images)
        model: Any = self.model
        out = {"image": F.normalize(raw, dim=-1), "scale": model.logit_scale.exp()}
        if getattr(model, "logit_bias", None) is not None:
            out["bias"] = model.logit_bias * 1
        out |= {name: out[name].detach() for name in self.constant & out.keys()}
        if tokens is not None:
            out["text"] = self.towers.encode_texts(tokens)
        if self.head is not None:
            out["logits"] = self.head(raw)
        for i, projection in self.projections.items():
            out[f"projected{i}"] = F.normalize(projection(raw).float(), dim=-1)
        return out
