"""Options of the augmentations beside the crop; light to import. What they do: `augment.py`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...registry import Options

Fraction = Annotated[float, Field(ge=0, le=1)]


class Augment(Options):
    """Random changes of a training image, drawn by its position in the training. The default, as DataComp's and
    open_clip's, is none."""

    flip: Fraction = Field(default=0.0, description="Probability of a horizontal flip.")
    jitter: tuple[Fraction, Fraction, Fraction, Annotated[float, Field(ge=0, le=0.5)]] | None = Field(
        default=None,
        description="Colour jitter: how much brightness, contrast, saturation and hue may change, as in torchvision's "
        "ColorJitter; null = off. SimCLR's mild setting is [0.32, 0.32, 0.32, 0.08].",
    )
    jitter_probability: Fraction = Field(default=0.8, description="Probability that a sample is jittered.")
    grayscale: Fraction = Field(default=0.0, description="Probability that a sample loses its colours.")
    erase: Fraction = Field(
        default=0.0, description="Probability that a random box of 2 to 33 % of the image becomes noise (erasing)."
    )

    @property
    def active(self) -> bool:
        """Whether anything is ever changed."""
        return bool(self.flip or self.grayscale or self.erase or (self.jitter and self.jitter_probability))
