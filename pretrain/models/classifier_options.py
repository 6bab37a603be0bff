"""Options of a classifier around an image tower; importing them needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ...registry import Options


class ClassifierOptions(Options):
    """How a classifier is built around an image tower; see `classifier.py`."""

    image_size: int | None = Field(
        default=None, ge=1, description="Height and width of the input, pixels; default: the architecture's."
    )
    drop_path: float = Field(default=0.0, ge=0, lt=1, description="Chance that a block is skipped (timm's models).")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of the features in front of the head.")
    head_init: Literal["zero", "small"] = Field(
        default="zero",
        description="First weights of the head: zero = all classes are alike and the tower learns from the second step "
        "on; small = normal of deviation 0.01.",
    )
    head_bias: bool = Field(default=True, description="Whether the head has a bias.")
    head_bias_init: float = Field(
        default=0.0,
        description="First value of the head's bias; for `multi_label` try -ln(classes).",
    )

    @model_validator(mode="after")
    def _bias_is_there(self) -> ClassifierOptions:
        if self.head_bias_init and not self.head_bias:
            raise ValueError("head_bias_init is set, but head_bias is false")
        return self
