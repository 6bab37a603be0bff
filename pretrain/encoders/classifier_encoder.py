"""A trained classifier as an encoder of images: its pooled features, and beside them its head.

Embeddings are the L2-normalised features in front of the head, as of every other encoder; `encode_pooled` gives them as
they are, which is what the head was trained on. Logits are one matrix product away (`LinearHead`), so whoever has the
features has them for any number of classes without another look at the pictures. A model of pictures and text that
learned labels besides has such a head, too, and is an encoder of both (`PairEncoder`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...errors import ConfigError
from ..data.preprocess import Preprocess
from ..data.tokenizer import Tokenizer
from ..models.architecture import Modality, ModelSpec, build
from ..models.classifier import PooledTower, load_visual, timm_module
from ..models.classifier_folder import ClassifierFolder, read_tensors
from ..models.towers import ImageTower, Towers
from ..precision import Precision
from .encoder import Encoder
from .timm_encoder import TimmEncoder


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The linear layer behind an encoder's pooled features.

    Attributes:
        classes: names, in the order of the logits.
        weight: ``(classes, d) float32``.
        bias: ``(classes,) float32``.
    """

    classes: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """``(n, classes) float32`` of L2-normalised `features` ``(n, d)`` that had the lengths `norms` ``(n,)``."""
        return (features @ self.weight.T) * norms[:, None] + self.bias

    @property
    def digest(self) -> str:
        """32 hexadecimal characters over names and weights."""
        digest = hashlib.blake2b("\0".join(self.classes).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.weight).tobytes() + np.ascontiguousarray(self.bias).tobytes())
        return digest.hexdigest()


class Pooled:
    """What an encoder with a head adds to one without; mixed into both kinds.

    Attributes:
        head: the classifier; None if its classes have no names.
    """

    head: LinearHead | None = None
    _tower: ClassVar[Any] = PooledTower

    def encode_pooled(self, images: Sequence[np.ndarray | bytes]) -> np.ndarray:
        """Pooled features of images as the head takes them, not normalised, ``(n, d) float32``.

        Raises:
            ImageError: a file cannot be decoded.
        """
        encoder = cast(Any, self)
        encoder._pooled_tower.pooled = True
        try:
            return encoder.encode_images(images)
        finally:
            encoder._pooled_tower.pooled = False

    def _make_towers(self) -> ImageTower:
        encoder = cast(Any, self)
        encoder._pooled_tower = self._tower(encoder.model, encoder.spec.preprocess)
        return encoder._pooled_tower

    @property
    def _about(self) -> Any:
        return {"model": super()._about, "head": self.head.digest if self.head else None}  # type: ignore[misc]


class TimmClassifierEncoder(Pooled, TimmEncoder):
    """A classifier on one of timm's image models."""


class VisualEncoder(Pooled, Encoder):
    """A classifier on the image tower of an open_clip model; its `spec` has no tokenizer."""

    modalities: ClassVar[tuple[Modality, ...]] = ("image",)

    @property
    def logit_scale(self) -> float:
        """Not there: an image model compares nothing."""
        raise ConfigError(f"{self.spec.name} is an image model: it has no logit scale")


class PooledTowers(Towers):
    """Two towers, whose image features can be had as they are.

    Attributes:
        pooled: True makes `encode_images` leave out L2-normalisation.
    """

    pooled = False

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, 3, h, w) uint8`` on any device -> ``(b, d) float32``, L2-normalised unless `pooled`."""
        features = self.image_features(images)
        return features if self.pooled else F.normalize(features, dim=-1)


class PairEncoder(Pooled, Encoder):
    """A model of pictures and text with a head over the classes that it learned besides."""

    _tower: ClassVar[Any] = PooledTowers


def with_head(
    module: nn.Module,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    device: torch.device,
    precision: Precision,
    heads: str,
    classes: tuple[str, ...],
) -> PairEncoder:
    """An encoder with the head that lies beside its weights.

    Args:
        module: the model, with its weights.
        heads: path of the heads' weights, ``head.weight`` and ``head.bias`` among them.
        classes: names, in the order of the logits.

    Raises:
        ConfigError: the head is not one of these classes over the model's features.
    """
    encoder = PairEncoder(module, spec, tokenizer, device, precision)
    encoder.head = _head(heads, classes, read_tensors(heads), "head", encoder.dim)
    return encoder


def load_classifier(found: ClassifierFolder, device: torch.device, precision: Precision) -> Encoder:
    """The encoder, with its head, that a folder holds.

    Raises:
        ConfigError: the model cannot be built, or the weights are not its own.
    """
    if found.timm is not None:
        return _load_timm(found, found.timm, device, precision)
    assert found.record is not None
    record = found.record
    config = record["model_cfg"]
    spec = ModelSpec(found.folder, config, "", _preprocess(record["preprocess"]))
    state = read_tensors(found.weights)
    visual = cast(nn.Module, build(spec, seed=0).visual)
    load_visual(visual, state, found.weights, record["model"])
    encoder = VisualEncoder(visual, spec, None, device, precision)
    encoder.head = _head(found.weights, found.classes, state, "head", encoder.dim)
    return encoder


def _load_timm(found: ClassifierFolder, config: dict[str, Any], device: torch.device, precision: Precision) -> Encoder:
    from timm.data.config import resolve_model_data_config

    classes = int(config.get("num_classes") or 0)
    given = config.get("model_args", {})
    args = {key: value for key, value in given.items() if key not in ("num_classes", "pretrained")}
    try:
        model = timm_module(str(config["architecture"]), classes, 0, args)
    except TypeError as error:
        raise ConfigError(f"{found.folder}: timm's {config['architecture']} has no such argument: {error}") from error
    state = read_tensors(found.weights)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{found.weights} does not hold the weights of {config['architecture']}: {reason}") from error
    last = model.get_classifier()
    where = next((key for key, module in model.named_modules() if module is last), "")
    model.reset_classifier(0)
    known = dict(model.pretrained_cfg) | config.get("pretrained_cfg", {})
    data = resolve_model_data_config(model, pretrained_cfg=known)
    encoder = TimmClassifierEncoder(model, found.folder, data, device, precision)
    if found.classes and isinstance(last, nn.Linear):
        encoder.head = _head(found.weights, found.classes, state, where, encoder.dim)
    return encoder


def _head(path: str, classes: tuple[str, ...], state: dict[str, torch.Tensor], where: str, dim: int) -> LinearHead:
    weight = state.get(f"{where}.weight")
    if weight is None or tuple(weight.shape) != (len(classes), dim):
        shape = "none" if weight is None else tuple(weight.shape)
        raise ConfigError(f"{path}: the classifier is {shape}, not {len(classes)} classes of {dim} features")
    bias = state.get(f"{where}.bias", torch.zeros(len(classes)))
    return LinearHead(classes, weight.float().numpy(), bias.float().numpy())


def _preprocess(value: dict[str, Any]) -> Preprocess:
    lists = {key: tuple(value[key]) for key in ("size", "mean", "std")}
    return Preprocess(**{**value, **lists})
