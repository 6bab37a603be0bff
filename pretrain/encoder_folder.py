"""An encoder on disk: what training writes, and what scoring and evaluation load.

``open_clip_config.json`` and ``open_clip_model.safetensors`` are open_clip's own layout (``local-dir:FOLDER`` loads
them); ``encoder.json`` adds what open_clip has no place for, the tokenizer and the facts of the training, and is
written last, so a folder that has it is whole. A folder without it is somebody else's open_clip export and works too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError
from ..shards import storage
from .classifier_folder import ClassifierFolder, is_classifier_folder, open_classifier_folder
from .models import CONFIG_FILE, ENCODER_FILE, ModelSpec, resolve_model
from .timm_names import TimmSpec, is_timm, resolve_timm, timm_weights

WEIGHTS_FILE = "open_clip_model.safetensors"
_OTHER_WEIGHTS = (  # open_clip's own order of preference
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
FORMAT = 1


@dataclass(frozen=True)
class FoundEncoder:
    """An encoder whose files are all there.

    Attributes:
        spec: its architecture, tokenizer and preprocessing; of timm's image models the name.
        weights: path of the weights, in any form that open_clip (or timm) loads.
        classifier: the folder, if it is that of an image classifier or of one of timm's models; `spec` is then only
            its name.
    """

    spec: ModelSpec | TimmSpec
    weights: str
    classifier: ClassifierFolder | None = None


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
        return FoundEncoder(TimmSpec(model, str((folder.timm or {}).get("architecture", ""))), folder.weights, folder)
    spec = resolve_model(model)
    if pretrained is None:
        weights = _weights_in(model)
        if weights is None:
            raise ConfigError(
                f"the encoder {model!r} has no weights: give `pretrained` a local checkpoint, or name an encoder folder"
            )
        return FoundEncoder(spec, weights)
    if storage.exists(storage.join(pretrained, CONFIG_FILE)):
        theirs = find_encoder(pretrained)
        if not isinstance(theirs.spec, ModelSpec) or theirs.spec.config != spec.config:
            raise ConfigError(f"the encoder folder {pretrained} does not hold a {model}; name the folder as the model")
        return theirs
    if not storage.exists(pretrained):
        raise ConfigError(f"the checkpoint {pretrained} of {model} does not exist; weights are never downloaded")
    return FoundEncoder(spec, pretrained)


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
