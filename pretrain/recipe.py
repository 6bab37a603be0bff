"""How to train: the options of a training, registered by name. Importing this is cheap; `objective` imports torch."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ..registry import Options, Registry

if TYPE_CHECKING:
    from .objectives.base import Objective

Fraction = Annotated[float, Field(gt=0, le=1)]


class Recipe(Options):
    """What every recipe has: AdamW, warm-up and cosine, crops, checkpoints. Defaults: DataComp's, but the batch."""

    type: str
    batch_size: int = Field(1024, ge=1, description="Samples per step; contrastive training sees them as negatives.")
    lr: float = Field(5e-4, gt=0, description="Learning rate at the end of the warm-up.")
    warmup: int = Field(500, ge=0, description="Steps of linear warm-up; then a cosine to 0.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean of gradients.")
    beta2: float = Field(0.98, ge=0, lt=1, description="AdamW: decay of the mean of squared gradients.")
    eps: float = Field(1e-6, gt=0, description="AdamW: added to the root of the squares.")
    weight_decay: float = Field(0.2, ge=0, description="AdamW: weight decay of matrices and embeddings.")
    grad_clip: float = Field(0.0, ge=0, description="Largest norm of the gradient; 0 = not clipped.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of the towers; weights stay fp32.")
    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.9, 1.0), description="Area of the random crop, as fractions of the image: least and most."
    )
    log_every: int = Field(10, ge=1, description="Steps between two lines of the log.")
    checkpoint_every_s: float = Field(
        300.0, ge=0, description="Seconds between two saves of the resumable state; 0 = after every step."
    )
    cache_mb: int = Field(256, ge=0, description="Memory for decoded images, MiB; spares decoding in later epochs.")

    @model_validator(mode="after")
    def _ordered(self) -> Recipe:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale: least {self.crop_scale[0]} is more than most {self.crop_scale[1]}")
        return self

    @abstractmethod
    def objective(self) -> Objective:
        """What is minimised."""


RECIPES: Registry[Recipe] = Registry("recipe")


@RECIPES.register
class ClipRecipe(Recipe):
    """Contrastive language-image pretraining (Radford et al., ICML 2021): all other pairs of a batch are negatives."""

    type: Literal["clip"] = "clip"

    def objective(self) -> Objective:
        from .objectives.clip import ClipObjective

        return ClipObjective()
