"""Optimizers as options. Importing this is cheap; `optimizer.py` builds what is described here.

Peak rate and weight decay are the recipe's; here is what differs between optimizers, and what all share: a factor on
the rate per tower, and per layer of a tower (Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ...registry import Options, Registry
from ..named_option import named_option

Beta = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(gt=0, le=1)]
Factor = Annotated[float, Field(gt=0)]


class Optimizer(Options):
    """What all optimizers have."""

    type: str
    image_lr: Factor = Field(1.0, description="Factor on the rate of the image tower.")
    text_lr: Factor = Field(1.0, description="Factor on the rate of the text tower.")
    head_lr: Factor = Field(1.0, description="Factor on the rate of classification heads and added projections.")
    image_layer_decay: Decay = Field(
        1.0, description="Factor on the rate per layer of the image tower, counted from its output; 1 = all alike."
    )
    text_layer_decay: Decay = Field(1.0, description="The same for the text tower.")


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")


@OPTIMIZERS.register
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019); defaults: open_clip's for ViTs."""

    type: Literal["adamw"] = "adamw"
    beta1: Beta = Field(0.9, description="Decay of the mean of gradients.")
    beta2: Beta = Field(0.98, description="Decay of the mean of squared gradients.")
    eps: float = Field(1e-6, gt=0, description="Added to the root of the squares.")


@OPTIMIZERS.register
class AdamW8bit(Optimizer):
    """AdamW whose moments take a byte each (Dettmers et al., ICLR 2022): 2 bytes per weight instead of 8. GPU only."""

    type: Literal["adamw_8bit"] = "adamw_8bit"
    beta1: Beta = Field(0.9, description="Decay of the mean of gradients.")
    beta2: Beta = Field(0.98, description="Decay of the mean of squared gradients.")
    eps: float = Field(1e-6, gt=0, description="Added to the root of the squares.")


@OPTIMIZERS.register
class Lion(Optimizer):
    """Sign of a momentum (Chen et al., NeurIPS 2023): 4 bytes of state per weight. Wants about a tenth to a third of
    AdamW's rate, and as many times its weight decay."""

    type: Literal["lion"] = "lion"
    beta1: Beta = Field(0.9, description="Share of the momentum in the step.")
    beta2: Beta = Field(0.99, description="Decay of the momentum.")


@OPTIMIZERS.register
class Muon(Optimizer):
    """Orthogonalised momentum for the matrices inside the towers, AdamW for all else (Jordan et al., 2024). Updates are
    scaled to AdamW's usual size (Liu et al., "Muon is scalable for LLM training", 2025), so its rate serves both."""

    type: Literal["muon"] = "muon"
    momentum: Beta = Field(0.95, description="Decay of the momentum of matrices.")
    nesterov: bool = Field(True, description="Look ahead by one step.")
    iterations: int = Field(5, ge=1, le=20, description="Newton-Schulz iterations per step.")
    beta1: Beta = Field(0.9, description="AdamW part: decay of the mean of gradients.")
    beta2: Beta = Field(0.98, description="AdamW part: decay of the mean of squared gradients.")
    eps: float = Field(1e-6, gt=0, description="AdamW part: added to the root of the squares.")


@OPTIMIZERS.register
class Sgd(Optimizer):
    """Stochastic gradient descent; weight decay is added to the gradient."""

    type: Literal["sgd"] = "sgd"
    momentum: Beta = Field(0.9, description="Decay of the momentum; 0 = none.")
    nesterov: bool = Field(True, description="Look ahead by one step.")


@OPTIMIZERS.register
class Timm(Optimizer):
    """Any optimizer of timm by its name there, such as ``lamb``, ``adafactorbv`` or ``nadamw``."""

    type: Literal["timm"] = "timm"
    name: str = Field(description="As in timm.optim.list_optimizers().")
    options: dict[str, Any] = Field(default_factory=dict, description="Passed on to the optimizer, such as betas.")


OptimizerOption: Any = named_option(OPTIMIZERS)
"""An optimizer in an option class: its name, or an object with its `type`."""
