"""The linear layer that turns a tower's features into logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .. import streams
from .classifier_options import ClassifierOptions

SMALL = 0.01  # deviation of the first weights with `head_init: small`


class Head(nn.Linear):
    """Features -> logits, linear; usable behind any tower that gives raw features ``(b, width)``."""

    def __init__(self, width: int, classes: int, seed: int, options: ClassifierOptions | None = None) -> None:
        """
        Args:
            width: of the features.
            seed: of the first weights; global random state is left alone.
            options: dropout, first weights and bias; default: zeros, with a bias.
        """
        options = options or ClassifierOptions()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(streams.key(seed, "head") >> 1)
            super().__init__(width, classes, options.head_bias)
            if options.head_init == "zero":
                nn.init.zeros_(self.weight)
            else:
                nn.init.normal_(self.weight, std=SMALL)
        if options.head_bias:
            nn.init.constant_(self.bias, options.head_bias_init)
        self.dropout = options.dropout

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``(b, width)`` -> ``(b, classes) float32``."""
        return super().forward(F.dropout(input, self.dropout, self.training)).float()
