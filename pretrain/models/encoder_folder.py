"""An encoder on disk: what training writes, and what scoring and evaluation load.

``open_clip_config.json`` and ``open_clip_model.safetensors`` are open_clip's own layout (``local-dir:FOLDER`` loads
them); ``encoder.json`` adds what open_clip has no place for, the tokenizer and the facts of the training, and is
written last, so a folder that has it is whole. A folder without it is somebody else's open_clip export and works too.
``heads.safetensors`` holds what was trained beside the model, with ``classes.json`` for a head that classifies.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...errors import ConfigError
from ...shards import storage
from ..data.label_space import LabelSpace
from .architecture import CONFIG_FILE, ENCODER_FILE, ModelSpec, resolve_model
from .classifier_folder import ClassifierFolder, is_classifier_folder, open_classifier_folder
from .timm_names import TimmSpec, is_timm, resolve_timm, timm_weights

WEIGHTS_FILE = "open_clip_model.safetensors"
_OTHER_WEIGHTS = (  # open_clip's own order of preference
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
HEADS_FILE = "heads.safetensors"
CLASSES_FILE = "classes.json"
FIRST_VALUES = ("init_logit_scale", "init_logit_bias")
FORMAT = 1


@dataclass(frozen=True)
class FoundEncoder:
    """An encoder whose files are all there.

    Attributes:
        spec: its architecture, tokenizer and preprocessing; of timm's image models the name.
        weights: path of the weights, in any form that open_clip (or timm) loads.
        classifier: the folder, if it is that of an image classifier or of one of timm's models; `spec` is then only
            its name.
        classes: what its head tells apart, in the order of its logits; empty without one.
        heads: path of the heads of a model of pictures and text, which lie beside its weights; None without a head.
    """

    spec: ModelSpec | TimmSpec
    weights: str
    classifier: ClassifierFolder | None = None
    classes: tuple[str, ...] = ()
    heads: str | None = None


def find_encoder(model: str, pretrained: str | None = None) -> FoundEncoder:
    """Where an encoder's files are, without importing torch or reading the weights.

    Args:
        model: an encoder folder, or a classifier's (`classifier_folder.py`); or, with `pretrained`, a model name
            (``timm:NAME`` for timm's image models).
        pretrained: a local checkpoint of `model`, or an encoder folder with the same architecture (timm: a model
            folder with ``config.json``).

    Raises:
        ConfigError: the model is unknown, or there are no weights.
    """
    if is_timm(model):
        image_model = resolve_timm(model)
        return FoundEncoder(image_model, timm_weights(image_model, pretrained))
    if is_classifier_folder(model):
        if pretrained is not None:
            raise ConfigError(f"{model} is a folder with weights of its own; leave out `pretrained`")
        folder = open_classifier_folder(model)
        named = TimmSpec(model, str((folder.timm or {}).get("architecture", "")))
        return FoundEncoder(named, folder.weights, folder, folder.classes)
    spec = resolve_model(model)
    if pretrained is None:
        weights = _weights_in(model)
        if weights is None:
            raise ConfigError(
                f"the encoder {model!r} has no weights: give `pretrained` a local checkpoint, or name an encoder folder"
            )
        return FoundEncoder(spec, weights, None, *_head_in(model))
    if storage.exists(storage.join(pretrained, CONFIG_FILE)):
        theirs = find_encoder(pretrained)
        if not isinstance(theirs.spec, ModelSpec) or built(theirs.spec) != built(spec):
            raise ConfigError(f"the encoder folder {pretrained} does not hold a {model}; name the folder as the model")
        return theirs
    if not storage.exists(pretrained):
        raise ConfigError(f"the checkpoint {pretrained} of {model} does not exist; weights are never downloaded")
    return FoundEncoder(spec, pretrained)


def built(spec: ModelSpec) -> dict[str, Any]:
    """A model config without the values that scale and bias begin with, which a recipe may have chosen."""
    return {key: value for key, value in spec.config.items() if key not in FIRST_VALUES}


def _head_in(folder: str) -> tuple[tuple[str, ...], str | None]:
    """Classes and path of the head that was trained along with a model of pictures and text."""
    classes, heads = (storage.join(folder, name) for name in (CLASSES_FILE, HEADS_FILE))
    if not (storage.exists(classes) and storage.exists(heads)):
        return (), None
    try:
        return LabelSpace.from_json(storage.read_json(classes)).names, heads
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read the classes in {classes}: {error}") from error


def _weights_in(folder: str) -> str | None:
    for name in (WEIGHTS_FILE, *_OTHER_WEIGHTS):
        path = storage.join(folder, name)
        if storage.exists(path):
            return path
    return None


def write_config(folder: str, spec: ModelSpec) -> None:
    """Publish ``open_clip_config.json``."""
    preprocess = asdict(spec.preprocess)
    del preprocess["size"]  # open_clip takes it from the model
    storage.write_json(
        storage.join(folder, CONFIG_FILE), {"model_cfg": spec.config, "preprocess_cfg": preprocess}, indent=2
    )


def write_record(folder: str, spec: ModelSpec, training: dict[str, Any]) -> None:
    """Publish ``encoder.json``, the last file of a folder."""
    value = {
        "format": FORMAT,
        "model": spec.short_name,
        "tokenizer": spec.tokenizer,
        "preprocess": asdict(spec.preprocess),
        "training": training,
    }
    storage.write_json(storage.join(folder, ENCODER_FILE), value, indent=2)
