"""timm's image models as encoders: pooled features in front of the classifier, L2-normalised.

Pictures are prepared by timm's own evaluation transform, as the model's data config has it (crop_pct, crop_mode and
interpolation included), up to the point where it would normalise. Not covered: NaFlex models, which take sequences of
patches, and models of other than three channels.

A checkpoint is read as timm reads one, its conversions of original checkpoints included; the classifier is left out,
and everything else must fit.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from ...errors import ConfigError
from ...shards import storage
from ...shards.images.image import decode_rgb
from ..data.preprocess import Preprocess
from ..models.architecture import Modality, ModelSpec
from ..models.timm_names import CONFIG_FILE, TimmSpec
from ..models.timm_weights import fill_but_classifier
from ..models.towers import ImageTower
from ..precision import Precision
from .encoder import Encoder


class TimmEncoder(Encoder):
    """An image model; its `spec` has the name and the data config, and no tokenizer."""

    modalities: ClassVar[tuple[Modality, ...]] = ("image",)

    def __init__(
        self, model: Any, name: str, data_config: dict[str, Any], device: torch.device, precision: Precision = "fp32"
    ) -> None:
        """
        Args:
            model: timm's module, without a classifier.
            data_config: as of `timm.data.resolve_model_data_config`.
        """
        from timm.data.transforms_factory import create_transform

        size = tuple(data_config["input_size"][1:])
        if data_config["input_size"][0] != 3:
            raise ConfigError(f"{name} takes pictures of {data_config['input_size'][0]} channels, not 3")
        preprocess = Preprocess(
            size,  # type: ignore[arg-type]
            tuple(data_config["mean"]),
            tuple(data_config["std"]),
            data_config["interpolation"],
        )
        self._transform: Any = create_transform(**data_config, is_training=False, use_prefetcher=True)
        config = {"timm": {key: data_config[key] for key in sorted(data_config)}}
        super().__init__(model, ModelSpec(name, config, "", preprocess), None, device, precision)
        with torch.inference_mode():
            features = self.model(torch.zeros((1, *data_config["input_size"]), device=device))
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            raise ConfigError(f"{name} gives no single vector per picture, so it cannot be an encoder")
        self.dim = features.shape[1]

    @property
    def image_key(self) -> Hashable:
        """Encoders with equal keys prepare a picture to the same array."""
        return repr(self.spec.config["timm"])

    @property
    def logit_scale(self) -> float:
        """Not there: an image model compares nothing."""
        raise ConfigError(f"{self.spec.name} is an image model: it has no logit scale")

    @property
    def _about(self) -> Any:
        return self.spec.config["timm"]

    def prepare(self, image: np.ndarray | bytes) -> np.ndarray:
        """Decoded ``(h, w, 3) uint8`` or an encoded file -> the model's ``(*image_size, 3) uint8`` input.

        Raises:
            ImageError: the file cannot be decoded.
        """
        rgb = decode_rgb(image) if isinstance(image, bytes) else image
        return np.asarray(self._transform(Image.fromarray(rgb))).transpose(1, 2, 0)

    def _make_towers(self) -> ImageTower:
        return ImageTower(self.model, self.spec.preprocess)


def load_timm(spec: TimmSpec, weights: str, device: torch.device, precision: Precision) -> TimmEncoder:
    """Build a model and fill it from a local checkpoint.

    Raises:
        ConfigError: timm refuses the name, or the file does not hold the model's weights.
    """
    import timm
    from timm.data.config import resolve_model_data_config

    if "naflex" in spec.timm_name:
        raise ConfigError(f"{spec.name} takes sequences of patches (NaFlex), which is not supported")
    try:
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(spec.timm_name, num_classes=0)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"timm cannot build {spec.timm_name}: {type(error).__name__}: {reason}") from error
    fill_but_classifier(model, weights, spec.name)
    known: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    folder = weights.rpartition("/")[0] or "."
    if storage.exists(storage.join(folder, CONFIG_FILE)):  # a model folder of timm's
        known |= storage.read_json(storage.join(folder, CONFIG_FILE)).get("pretrained_cfg", {})
    return TimmEncoder(model, spec.name, resolve_model_data_config(model, pretrained_cfg=known), device, precision)
