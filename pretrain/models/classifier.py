"""An image tower with a linear head: what supervised pretraining trains.

The tower is any image model of timm's (``timm:NAME``, built without its classifier and without downloading anything) or
the image side of any model that `models.py` knows, whose text side is built and thrown away. Pictures come as uint8 and
are normalised inside. The head works on the tower's pooled features as they are, before L2-normalisation; with timm's
models logits then equal timm's own to the bit, so that a trained classifier can be published under timm's names
(`classifier_folder.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...errors import ConfigError
from ...shards import storage
from .. import streams
from ..data.preprocess import Preprocess
from .architecture import CONFIG_FILE as OPEN_CLIP_CONFIG
from .architecture import ModelSpec, build, resolve_model
from .classifier_folder import is_classifier_folder, open_classifier_folder, read_tensors
from .classifier_options import ClassifierOptions
from .encoder_folder import find_encoder
from .heads import Head
from .network import Outputs
from .timm_names import TimmSpec, is_timm, resolve_timm
from .timm_weights import fill_but_classifier
from .towers import ImageTower
from .weights import load_weights

_SHOWN = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


class PooledTower(ImageTower):
    """An image tower whose features can be had as they are.

    Attributes:
        pooled: True makes `encode_images` leave out L2-normalisation.
    """

    pooled = False

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, 3, h, w) uint8`` on any device -> ``(b, d) float32``, L2-normalised unless `pooled`."""
        features = self.image_features(images)
        return features if self.pooled else F.normalize(features, dim=-1)

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        features = self.model(pixels)
        return features[0] if isinstance(features, tuple) else features  # CoCa's tower also returns its tokens


@dataclass(frozen=True)
class Architecture:
    """What a classifier's tower is, in words that a file can hold.

    Attributes:
        model: the name without folders, ``timm:NAME`` for timm's.
        config: open_clip's model config; None for timm's.
        timm_name: what `timm.create_model` takes, without a tag; None for open_clip's.
        timm_args: of `timm.create_model`, beside the number of classes.
        timm_classifier: where timm keeps the classifier, such as ``head.fc``.
        timm_input: timm's data config.
    """

    model: str
    config: dict[str, Any] | None = None
    timm_name: str | None = None
    timm_args: dict[str, Any] | None = None
    timm_classifier: str = ""
    timm_input: dict[str, Any] | None = None


class Classifier(nn.Module):
    """uint8 images -> features and logits; called by the trainer as a `network.PairNetwork` is.

    Attributes:
        tower: its module's parameters are ``tower.model``'s.
        head: the classifier.
        architecture: of the tower.
        preprocess: the tower's input.
    """

    one: torch.Tensor

    def __init__(self, tower: nn.Module, head: Head, architecture: Architecture, preprocess: Preprocess) -> None:
        super().__init__()
        self.tower = PooledTower(tower, preprocess)
        self.head = head
        self.architecture = architecture
        self.preprocess = preprocess
        self.register_buffer("one", torch.ones(()), persistent=False)

    @property
    def width(self) -> int:
        """Dimensions of the features."""
        return self.head.in_features

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.head.out_features

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, 3, h, w) uint8`` -> pooled features ``(b, width) float32``, as the tower gives them."""
        return self.tower.image_features(images)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, 3, h, w) uint8`` -> ``(b, classes) float32``."""
        return self.head(self.features(images))

    def forward(self, images: torch.Tensor, tokens: np.ndarray | None = None) -> Outputs:
        """``image`` (L2-normalised features), ``logits`` and ``scale`` (always 1); captions are not looked at."""
        features = self.features(images)
        return {"image": F.normalize(features, dim=-1), "logits": self.head(features), "scale": self.one}


def build_classifier(model: str, classes: int, seed: int, options: ClassifierOptions | None = None) -> Classifier:
    """A classifier in training mode on the CPU, initialised from `seed`; global random state is left alone.

    Args:
        model: ``timm:NAME``, or a name, JSON or folder of `models.resolve_model`, whose image tower is taken.
        classes: number of classes.

    Raises:
        ConfigError: no such model, it cannot be built, its classifier is not one linear layer, or it has no use for an
            option.
    """
    options = options or ClassifierOptions()
    if is_timm(model):
        tower, width, architecture, preprocess = _timm_tower(resolve_timm(model), classes, seed, options)
    else:
        tower, width, architecture, preprocess = _open_clip_tower(model, seed, options)
    return Classifier(tower, Head(width, classes, seed, options), architecture, preprocess)


Parts = tuple[nn.Module, int, Architecture, Preprocess]
"""A tower, its width, and what it is."""


def _open_clip_tower(model: str, seed: int, options: ClassifierOptions) -> Parts:
    if options.drop_path:
        raise ConfigError(f"drop_path needs an image model of timm's; {model} has no stochastic depth")
    spec = resolve_model(model)
    if options.image_size:
        vision = {**spec.config["vision_cfg"], "image_size": options.image_size}
        preprocess = replace(spec.preprocess, size=(options.image_size, options.image_size))
        spec = replace(spec, config={**spec.config, "vision_cfg": vision}, preprocess=preprocess)
    visual = cast(nn.Module, build(spec, seed).visual)
    return visual, int(spec.config["embed_dim"]), Architecture(spec.short_name, config=spec.config), spec.preprocess


def _timm_tower(spec: TimmSpec, classes: int, seed: int, options: ClassifierOptions) -> Parts:
    from timm.data.config import resolve_model_data_config

    name = spec.timm_name.partition(".")[0]
    args: dict[str, Any] = {"drop_path_rate": options.drop_path} if options.drop_path else {}
    size = {"img_size": options.image_size} if options.image_size else {}
    try:
        full = timm_module(name, classes, seed, {**args, **size})
    except TypeError as error:
        if "img_size" not in str(error):
            raise ConfigError(f"timm's {name} has no use for an option: {error}") from error
        size = {}  # convolutions take any size
        full = timm_module(name, classes, seed, args)
    last = full.get_classifier()
    where = next((key for key, module in full.named_modules() if module is last), "")
    names = set(full.state_dict())
    full.reset_classifier(0)
    if not isinstance(last, nn.Linear) or names != {*full.state_dict(), f"{where}.weight", f"{where}.bias"}:
        raise ConfigError(f"the classifier of timm's {name} is not one linear layer; take another model")
    known = dict(full.pretrained_cfg)
    if options.image_size:
        known["input_size"] = (3, options.image_size, options.image_size)
    data = resolve_model_data_config(full, pretrained_cfg=known)
    if data["input_size"][0] != 3:
        raise ConfigError(f"{spec.name} takes pictures of {data['input_size'][0]} channels, not 3")
    shown = {key: list(data[key]) if isinstance(data[key], tuple) else data[key] for key in _SHOWN}
    architecture = Architecture(f"timm:{name}", timm_name=name, timm_args=size, timm_classifier=where, timm_input=shown)
    height, width = data["input_size"][1:]
    preprocess = Preprocess((height, width), tuple(data["mean"]), tuple(data["std"]), data["interpolation"])
    return full, last.in_features, architecture, preprocess


def timm_module(name: str, classes: int, seed: int, args: dict[str, Any]) -> Any:
    """An image model of timm's with first weights from `seed`; nothing is downloaded.

    Raises:
        ConfigError: timm cannot build it. TypeError: it does not know an argument.
    """
    import timm

    if "naflex" in name:
        raise ConfigError(f"timm's {name} takes sequences of patches (NaFlex), which is not supported")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(streams.key(seed, "initialisation") >> 1)
            return timm.create_model(name, pretrained=False, num_classes=classes, **args)
    except TypeError:
        raise
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"timm cannot build {name}: {type(error).__name__}: {reason}") from error


def load_visual(visual: nn.Module, state: Mapping[str, torch.Tensor], weights: str, name: str) -> None:
    """Fill an image tower of open_clip's from a state dict that holds it under ``visual.``.

    Args:
        weights, name: path and architecture, for messages.

    Raises:
        ConfigError: they do not fit.
    """
    try:
        visual.load_state_dict({k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{weights} does not hold the weights of {name}: {reason}") from error


def load_tower(classifier: Classifier, start: str, classes: Sequence[str] = ()) -> list[str]:
    """Begin from weights on disk instead of the seed's.

    Args:
        start: folder of a classifier or of timm, an encoder folder, or a checkpoint, of the same architecture.
        classes: names of the classifier's classes; rows of the head are taken over for those that `start` knows too.

    Returns:
        The classes whose rows were taken over.

    Raises:
        ConfigError: there are no such weights, or they are another architecture's.
    """
    tower, architecture = cast(Any, classifier.tower.model), classifier.architecture
    if not is_classifier_folder(start):
        if architecture.timm_name:
            fill_but_classifier(tower, find_encoder(architecture.model, start).weights, architecture.model)
            return []
        spec = ModelSpec(architecture.model, architecture.config or {}, "", classifier.preprocess)
        weights = find_encoder(start).weights if storage.exists(storage.join(start, OPEN_CLIP_CONFIG)) else start
        if not storage.exists(weights):
            raise ConfigError(f"the checkpoint {weights} to start from does not exist; weights are never downloaded")
        whole = load_weights(build(spec, seed=0), weights, architecture.model)
        tower.load_state_dict(cast(nn.Module, whole.visual).state_dict())
        return []
    found = open_classifier_folder(start)
    theirs = (found.timm or {}).get("architecture")
    if theirs != architecture.timm_name:
        raise ConfigError(f"{start} holds a {theirs or 'tower of open_clip'}, not a {architecture.model}")
    state = read_tensors(found.weights)
    if architecture.timm_name:
        fill_but_classifier(tower, found.weights, architecture.model)
        head = f"{architecture.timm_classifier}."
    else:
        load_visual(tower, state, found.weights, architecture.model)
        head = "head."
    known = {name: i for i, name in enumerate(found.classes)}
    shared = [(i, known[name]) for i, name in enumerate(classes) if name in known]
    if shared:
        ours, others = (list(numbers) for numbers in zip(*shared, strict=True))
        with torch.no_grad():
            classifier.head.weight[ours] = state[head + "weight"][others]
            if classifier.head.bias is not None:
                classifier.head.bias[ours] = state[head + "bias"][others]
    return [classes[i] for i, _ in shared]
