"""Publish a trained classifier as the folder that `models/classifier_folder.py` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from ...shards import storage
from ..data.label_space import LabelSpace
from ..models.classifier import Classifier
from ..models.classifier_folder import CLASSIFIER_FILE, FORMAT, TIMM_WEIGHTS_FILE, VISUAL_WEIGHTS_FILE
from ..models.timm_names import CONFIG_FILE as TIMM_CONFIG_FILE


def write_classifier_folder(
    folder: str,
    classifier: Classifier,
    space: LabelSpace,
    training: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Publish a classifier, file by file, the record last.

    Args:
        space: its classes, in the order of its logits.
        training: facts, strict JSON.
        weights: the classifier's state dict, if not its own (a moving average, gathered pieces).

    Raises:
        ValueError: the number of classes is not the head's.
    """
    from safetensors.torch import save_file

    if len(space) != classifier.classes:
        raise ValueError(f"{len(space)} classes for a head of {classifier.classes}")
    architecture = classifier.architecture
    state = published_weights(classifier, weights)
    file = TIMM_WEIGHTS_FILE if architecture.timm_name else VISUAL_WEIGHTS_FILE
    with storage.publishing(storage.join(folder, file)) as path:
        save_file(state, path, {"format": "pt"})
    if architecture.timm_name:
        storage.write_json(storage.join(folder, TIMM_CONFIG_FILE), _timm_config(classifier, space), indent=2)
    record = {
        "format": FORMAT,
        "model": architecture.model,
        "model_cfg": architecture.config,
        "preprocess": asdict(classifier.preprocess),
        "width": classifier.width,
        "classes": space.to_json(),
        "training": dict(training),
    }
    storage.write_json(storage.join(folder, CLASSIFIER_FILE), record, indent=2)


def published_weights(
    classifier: Classifier, weights: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """A classifier's state dict under the names of timm or of open_clip's image tower, on the CPU.

    A head without a bias gets one of zeros, because timm's classifiers have one.
    """
    state = classifier.state_dict() if weights is None else weights
    timm = classifier.architecture.timm_name is not None
    tower, head = ("", f"{classifier.architecture.timm_classifier}.") if timm else ("visual.", "head.")
    found = {}
    for name, tensor in state.items():
        if name.startswith("tower.model."):
            found[tower + name.removeprefix("tower.model.")] = tensor
        elif name.startswith("head."):
            found[head + name.removeprefix("head.")] = tensor
    if head + "bias" not in found:
        found[head + "bias"] = torch.zeros(classifier.classes)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


def _timm_config(classifier: Classifier, space: LabelSpace) -> dict[str, Any]:
    architecture = classifier.architecture
    return {
        "architecture": architecture.timm_name,
        "num_classes": classifier.classes,
        "num_features": classifier.width,
        "label_names": list(space.names),
        "model_args": architecture.timm_args or {},
        "pretrained_cfg": {
            **(architecture.timm_input or {}),
            "num_classes": classifier.classes,
            "classifier": architecture.timm_classifier,
        },
    }
