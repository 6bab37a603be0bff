"""How a proxy is trained (`proxy.py`): options only, so that they import without torch."""

from __future__ import annotations

from pydantic import Field

from ...registry import Options


class ProxyRecipe(Options):
    """A short supervised training."""

    batch_size: int = Field(default=64, ge=1, description="Samples per step.")
    lr: float = Field(default=2e-3, gt=0, description="Peak learning rate of AdamW.")
    warmup: int = Field(default=10, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(default=0.05, ge=0, description="Decay of matrices, decoupled.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first decay rate.")
    beta2: float = Field(default=0.98, ge=0, lt=1, description="AdamW's second decay rate.")
    eps: float = Field(default=1e-6, gt=0, description="AdamW's epsilon.")
    crop_scale: tuple[float, float] = Field(
        default=(0.8, 1.0), description="Least and most area of the random crops, as fractions of the image."
    )
    cache_mb: int = Field(default=256, ge=0, description="Memory for decoded images; changes no result.")
    checkpoint_every_s: float = Field(
        default=60.0, gt=0, description="Seconds between saved states; the most work that a kill costs."
    )
