"""How an image becomes a model's input: the facts of it, for data and models alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the model's input; open_clip's ``preprocess_cfg``.

    Attributes:
        size: height and width in pixels.
        mean, std: of the three channels, on a scale of 0-1.
        resize_mode: ``shortest`` side to size and centre crop, ``longest`` side and pad, or ``squash``.
        fill_color: grey level of the padding.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0

    @staticmethod
    def of(config: dict[str, Any], options: dict[str, Any]) -> Preprocess:
        """From a model's config and its ``preprocess_cfg`` (keys that we do not know are open_clip's own business)."""
        size = config["vision_cfg"].get("image_size", 224)
        known = {k: options[k] for k in ("interpolation", "resize_mode", "fill_color") if options.get(k) is not None}
        if known.get("interpolation") == "random":  # open_clip: random in training, bicubic otherwise
            known["interpolation"] = "bicubic"
        return Preprocess(
            size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
            mean=_three(options.get("mean"), OPENAI_MEAN),
            std=_three(options.get("std"), OPENAI_STD),
            **known,
        )


def _three(value: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    if value is None:
        return default
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(v) for v in value)
