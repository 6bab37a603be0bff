"""How the samples of one step are looked at: what may change from phase to phase of a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """Geometry of one step's inputs.

    Attributes:
        image_size: height and width of the images in pixels.
        crop_scale: least and most area of a crop, as fractions of the image.
        text_length: tokens per caption; longer ones are cut so that their end mark stays. None = the tokenizer's own.
    """

    image_size: tuple[int, int]
    crop_scale: tuple[float, float] = (0.9, 1.0)
    text_length: int | None = None
