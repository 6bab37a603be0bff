"""The factor on cosines and the bias of the logits: where they begin, and the range that they keep.

The model holds the factor's logarithm, ``logit_scale``, and perhaps a ``logit_bias``; open_clip's names.
Sources: CLIP (Radford et al., ICML 2021, section 2.5): temperature 0.07, factor at most 100. SigLIP (Zhai et al., ICCV
2023, section 3.2): factor 10, bias -10, so that the many negative pairs do not rule the first steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

MAX_LOGIT_SCALE = math.log(100)


def initial_scale(loss: Literal["clip", "siglip"]) -> float:
    """Logarithm of the factor on cosines at the beginning of a training."""
    return math.log(10) if loss == "siglip" else math.log(1 / 0.07)


def initial_bias(loss: Literal["clip", "siglip"]) -> float | None:
    """Bias of the logits at the beginning; None = the model needs none."""
    return -10.0 if loss == "siglip" else None


def clamp(model: nn.Module) -> None:
    """Keep every ``logit_scale`` of the model, wrapped or not, in [0, ln 100]: after each step, whatever the loss."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2] == "logit_scale":
                parameter.clamp_(0, MAX_LOGIT_SCALE)
