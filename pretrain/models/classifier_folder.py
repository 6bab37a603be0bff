"""A trained classifier on disk: a folder that timm loads as its own where the tower is timm's.

* timm's towers: ``config.json`` and ``model.safetensors`` as timm's hub folders have them, the classifier under timm's
  names: ``timm.create_model("local-dir:FOLDER", pretrained=True)`` or ``timm.create_model(NAME, num_classes=N,
  checkpoint_path="FOLDER/model.safetensors")`` load it. Folders that timm wrote itself are read as well; they classify
  if their config names the labels.
* open_clip's image towers: ``classifier.safetensors`` with the tower under open_clip's names (``visual.``), which
  ``load_state_dict(..., strict=False)`` puts into a whole model, and ``head.weight``, ``head.bias``.

``classifier.json`` adds the classes, the architecture and the facts of the training, and is written last, so a folder
that has it is whole. Reading needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...shards import storage
from ..data.label_space import LabelSpace
from .timm_names import CONFIG_FILE as TIMM_CONFIG_FILE

if TYPE_CHECKING:
    import torch


CLASSIFIER_FILE = "classifier.json"
TIMM_WEIGHTS_FILE = "model.safetensors"
VISUAL_WEIGHTS_FILE = "classifier.safetensors"
_TIMM_WEIGHTS = (TIMM_WEIGHTS_FILE, "pytorch_model.safetensors", "pytorch_model.bin")
FORMAT = 1


@dataclass(frozen=True)
class ClassifierFolder:
    """An image model whose files are all there.

    Attributes:
        folder: where.
        weights: path of its weights.
        timm: timm's ``config.json``; None for an open_clip image tower.
        record: ``classifier.json``; None for a folder that timm wrote.
        classes: names in the order of the logits; empty if nobody wrote them down.
    """

    folder: str
    weights: str
    timm: dict[str, Any] | None
    record: dict[str, Any] | None
    classes: tuple[str, ...]

    @property
    def identity(self) -> str:
        """32 hexadecimal characters over architecture, preprocessing and classes, not the weights."""
        about = {key: value for key, value in (self.record or {}).items() if key != "training"}
        return hashlib.blake2b(json.dumps([about, self.timm], sort_keys=True).encode(), digest_size=16).hexdigest()


def is_classifier_folder(name: str) -> bool:
    """Whether a model name is the path of such a folder; at most two look-ups."""
    if name.startswith("timm:"):
        return False
    if storage.exists(storage.join(name, CLASSIFIER_FILE)):
        return True
    path = storage.join(name, TIMM_CONFIG_FILE)
    return storage.exists(path) and "architecture" in read_object(path)


def open_classifier_folder(folder: str) -> ClassifierFolder:
    """Read what the folder says about itself.

    Raises:
        ConfigError: there is no such folder, or it is not whole.
    """
    record_path, timm_path = (storage.join(folder, name) for name in (CLASSIFIER_FILE, TIMM_CONFIG_FILE))
    record = read_object(record_path) if storage.exists(record_path) else None
    timm = read_object(timm_path) if storage.exists(timm_path) else None
    if record is None and (timm is None or "architecture" not in timm):
        raise ConfigError(f"{folder} is no folder of a classifier: it has neither {CLASSIFIER_FILE} nor a timm config")
    names = _TIMM_WEIGHTS if timm is not None else (VISUAL_WEIGHTS_FILE,)
    weights = next((path for name in names if storage.exists(path := storage.join(folder, name))), None)
    if weights is None:
        raise ConfigError(f"{folder} has no weights ({names[0]})")
    if record is not None:
        classes = LabelSpace.from_json(record["classes"]).names
    else:
        assert timm is not None
        classes = _label_names(timm)
    return ClassifierFolder(folder, weights, timm, record, classes)


def _label_names(config: dict[str, Any]) -> tuple[str, ...]:
    """timm's class names: a list, or an object by class number."""
    found = config.get("label_names") or config.get("pretrained_cfg", {}).get("label_names") or ()
    count = int(config.get("num_classes") or config.get("pretrained_cfg", {}).get("num_classes") or 0)
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found, key=int)]
    return tuple(str(name) for name in found) if len(found) == count else ()


def read_object(path: str) -> dict[str, Any]:
    """The JSON object of a model's config or record.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    try:
        value = storage.read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the model config {path}: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"the model config {path} is not a JSON object")
    return value


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint by name, on the CPU.

    Raises:
        ConfigError: the file cannot be read.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    local = storage.local(path)
    try:
        if local.endswith(".safetensors"):
            return load_file(local)
        return torch.load(local, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(f"cannot read the weights {path}: {str(error).splitlines()[0]}") from error
