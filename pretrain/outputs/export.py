"""Publish a finished training as a folder: open_clip's (or timm's) own files, ours beside them, the record last.

``open_clip_model.safetensors`` with ``open_clip_config.json`` is what ``local-dir:FOLDER`` loads, and
``checkpoints/epoch_latest.pt`` what ``create_model(NAME, pretrained=PATH)`` does. Both give the same model: where the
recipe keeps a moving average of the weights, the average is the model, and the weights as trained, to which the
optimizer's moments belong, lie beside it as ``state_dict_trained``. Nothing here holds clock time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ...shards import storage
from ..data.label_space import LabelSpace
from ..models.architecture import ModelSpec
from ..models.encoder_folder import CLASSES_FILE, HEADS_FILE, WEIGHTS_FILE, write_config, write_record
from ..state.checkpoint import save_torch
from ..state.snapshots import Snapshots
from . import curves
from .export_classifier import published_weights, write_classifier_folder
from .model_card import CARD_FILE, CardFacts, flat, model_card
from .retrieval import contrastive_loss, retrieval_metrics

CHECKPOINT_FILE = "checkpoints/epoch_latest.pt"
RESULTS_FILE = "checkpoints/results.jsonl"
PARAMS_FILE = "params.txt"
INSIDE = "towers.model."  # where a `PairNetwork` has its open_clip model

Tensors = Mapping[str, torch.Tensor]


class Assembled(Protocol):
    """What was trained (`assembly.Assembly`), as far as publishing it goes.

    Attributes:
        name: of the architecture, without folders.
        spec: of a model of pictures and text; None of a classifier.
        network: a `PairNetwork` or a `Classifier`.
        classes: what a head tells apart, or None.
    """

    name: str
    spec: ModelSpec | None
    network: Any
    classes: LabelSpace | None


@dataclass(frozen=True)
class Finished:
    """A training that has come to its end.

    Attributes:
        assembly: what was trained.
        weights: of the network, by its own names; the moving average where there is one.
        record: ``recipe`` (its options) and the fields of the training's report; goes into the folder's record.
        epoch, step, samples_seen: where it ended.
        optimizer: its state, or None to leave it out.
        trained: the weights as trained, where `weights` is their average.
        log, validation: lines, in order.
        facts: for the model card.
        snapshots: of the way; `made`: samples seen at each of them.
    """

    assembly: Assembled
    weights: Tensors
    record: Mapping[str, Any]
    epoch: int
    step: int
    samples_seen: int
    optimizer: Mapping[str, Any] | None = None
    trained: Tensors | None = None
    log: Sequence[Mapping[str, float]] = ()
    validation: Sequence[Mapping[str, float]] = ()
    facts: CardFacts = field(default_factory=CardFacts)
    snapshots: Snapshots | None = None
    made: Sequence[int] = ()


def publish(out: str, finished: Finished) -> None:
    """Write the folder, file by file, its record last; process 0 alone calls it."""
    assembly = finished.assembly
    averaged, pairs = finished.trained is not None, assembly.spec is not None
    value = checkpoint_value(
        assembly.name,
        finished.epoch,
        finished.step,
        finished.samples_seen,
        published(assembly, finished.weights),
        finished.optimizer,
        published(assembly, finished.trained) if finished.trained is not None else None,
    )
    save_torch(storage.join(out, CHECKPOINT_FILE), value)
    if finished.snapshots:
        finished.snapshots.publish(out, finished.made, finished.validation)
    write_params(out, {"model": assembly.name, **finished.record})
    if finished.validation:
        write_results(out, finished.validation)
    curves.write_log(out, finished.log)
    curves.write_events(out, finished.log, finished.validation)
    card = model_card(
        assembly.name, finished.record, finished.facts, finished.log, finished.validation, averaged, pairs
    )
    storage.write_bytes(storage.join(out, CARD_FILE), card.encode())
    _write_model(out, finished, {**finished.record, **({"weights": "average"} if averaged else {})})


def _write_model(out: str, finished: Finished, record: Mapping[str, Any]) -> None:
    """The weights in their library's own form, and the record behind them."""
    assembly = finished.assembly
    if assembly.spec is None:
        assert assembly.classes is not None
        write_classifier_folder(out, assembly.network, assembly.classes, record, finished.weights)
        return
    save_weights(storage.join(out, WEIGHTS_FILE), published(assembly, finished.weights))
    heads = {name: tensor for name, tensor in finished.weights.items() if not name.startswith("towers.")}
    if heads:
        save_weights(storage.join(out, HEADS_FILE), heads)
    if heads and assembly.classes is not None:
        storage.write_json(storage.join(out, CLASSES_FILE), assembly.classes.to_json())
    write_config(out, assembly.spec)
    write_record(out, assembly.spec, dict(record))


def published(assembly: Assembled, weights: Tensors) -> dict[str, torch.Tensor]:
    """A network's weights under the names of open_clip (or, of a classifier, timm), without what these do not know."""
    if assembly.spec is None:
        return published_weights(assembly.network, weights)
    return {name.removeprefix(INSIDE): tensor for name, tensor in weights.items() if name.startswith(INSIDE)}


def checkpoint_value(
    name: str,
    epoch: int,
    step: int,
    samples_seen: int,
    weights: Tensors,
    optimizer: Mapping[str, Any] | None = None,
    trained: Tensors | None = None,
) -> dict[str, Any]:
    """A checkpoint as open_clip lays it out; read with ``weights_only=True``, since all is tensors and numbers.

    Args:
        weights: what whoever loads the file gets, under the library's names (`published`).
        trained: those that `weights` are the average of, or None.
    """
    value: dict[str, Any] = {
        "epoch": epoch,
        "global_step": step,
        "samples_seen": samples_seen,
        "name": name,
        "state_dict": _plain(weights),
    }
    if trained is not None:
        value["state_dict_trained"] = _plain(trained)
    if optimizer is not None:
        value["optimizer"] = optimizer
    return value


def save_weights(path: str, weights: Tensors) -> None:
    """Publish tensors in safetensors' format."""
    from safetensors.torch import save_file

    with storage.publishing(path) as temporary:
        save_file(_plain(weights), temporary, {"format": "pt"})


def _plain(weights: Tensors) -> dict[str, torch.Tensor]:
    """On the CPU, each with memory of its own: safetensors refuses two names for one tensor."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in seen and plain.numel() else plain
        seen.add(place)
    return found


def write_params(out: str, params: Mapping[str, Any]) -> None:
    """Publish ``params.txt`` as open_clip writes it: sorted lines ``name: value``, nested options with dots."""
    lines = [f"{name}: {value}\n" for name, value in sorted(flat(params).items())]
    storage.write_bytes(storage.join(out, PARAMS_FILE), "".join(lines).encode())


def write_results(out: str, validation: Sequence[Mapping[str, float]]) -> None:
    """Publish ``checkpoints/results.jsonl``, a line per evaluation."""
    text = "".join(json.dumps(dict(line), allow_nan=False) + "\n" for line in validation)
    storage.write_bytes(storage.join(out, RESULTS_FILE), text.encode())


def validation_line(
    image: torch.Tensor,
    text: torch.Tensor,
    scale: float,
    batch: int,
    epoch: int,
    step: int,
    samples_seen: int,
) -> dict[str, float]:
    """One evaluation under open_clip's names, and where in the training it was made.

    Args:
        image, text: ``(n, d)`` features of the validation set's pairs, L2-normalised.
        scale: factor on cosines.
        batch: samples per batch of the loss, see `retrieval.contrastive_loss`.
    """
    return {
        **retrieval_metrics(image, text),
        "clip_val_loss": contrastive_loss(image, text, scale, batch),
        "epoch": epoch,
        "num_samples": len(image),
        "step": step,
        "samples_seen": samples_seen,
    }


__all__ = [
    "Assembled",
    "Finished",
    "checkpoint_value",
    "publish",
    "published",
    "retrieval_metrics",
    "save_weights",
    "validation_line",
]
