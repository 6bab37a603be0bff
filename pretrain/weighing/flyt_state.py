"""The resumable state of a FLYT training, saved whole or not at all, and read only by the training that wrote it.

Like `checkpoint.py`, for a training with two optimizers: the reference model's, which is written out so that it can be
differentiated, and the scorer's.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

import torch
from torch import nn

from ...errors import DataError
from ...shards import storage
from ..state import checkpoint
from .second_order import AdamWState

STATE_FILE = "flyt_state.pt"


@dataclass
class FlytState:
    """Where a training is; ``curve`` holds a point every `log_every` steps."""

    reference: AdamWState
    scorer: nn.Module
    scale: torch.Tensor
    optimizer: torch.optim.Optimizer
    step: int = 0
    replaced: int = 0
    corrupt: list[str] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


def save_state(scratch: str, inputs: str, state: FlytState) -> None:
    """Publish the state in the scratch folder; `inputs` is a digest of all that the result depends on."""
    value = {
        "inputs": inputs,
        "parameters": state.reference.parameters,
        "mean": state.reference.mean,
        "square": state.reference.square,
        "reference_step": state.reference.step,
        "scorer": state.scorer.state_dict(),
        "scale": state.scale.detach(),
        "optimizer": state.optimizer.state_dict(),
        **{name: getattr(state, name) for name in ("step", "replaced", "corrupt", "curve")},
    }
    checkpoint.save_torch(storage.join(scratch, STATE_FILE), value)


def restore_state(scratch: str, inputs: str, state: FlytState, place: torch.device) -> None:
    """Bring `state` to where the scratch folder says the training is; it stays as it is when there is nothing.

    Raises:
        DataError: the file is another training's, or cannot be read.
    """
    path = storage.join(scratch, STATE_FILE)
    if not storage.exists(path):
        return
    try:
        value = torch.load(storage.local(path), map_location=place, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"cannot read the training state {path}: {error}; remove it to start over") from error
    if value["inputs"] != inputs:
        raise DataError(f"{path} belongs to another training; use another scratch folder, or remove it to start over")
    reference = state.reference
    reference.parameters, reference.mean, reference.square = value["parameters"], value["mean"], value["square"]
    reference.step = value["reference_step"]
    state.scorer.load_state_dict(value["scorer"])
    with torch.no_grad():
        state.scale.copy_(value["scale"])
    state.optimizer.load_state_dict(value["optimizer"])
    state.step, state.replaced = value["step"], value["replaced"]
    state.corrupt, state.curve = value["corrupt"], value["curve"]
