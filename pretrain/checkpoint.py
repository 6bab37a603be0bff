"""The resumable state of a training, saved whole or not at all.

Everything random is a function of (seed, step), so a state is the weights, the optimizer's moments, the step and the
log so far. It is read without unpickling code, and only by the training that wrote it: `inputs` is a digest of all
that the result depends on.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import DataError
from ..shards import storage

STATE_FILE = "training_state.pt"


@dataclass
class TrainingState:
    """Where a training is.

    Attributes:
        step: steps done.
        replaced: samples so far that stood in for a corrupt one.
        corrupt: names of the corrupt images met so far.
        log: lines of the log so far.
        losses: of the steps since the last line.
    """

    step: int = 0
    replaced: int = 0
    corrupt: list[str] = field(default_factory=list)
    log: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def save_torch(path: str, value: Any) -> None:
    """Publish `value` in torch's format; the bytes depend on the value only."""
    with storage.publishing(path) as temporary, open(temporary, "wb") as file:
        torch.save(value, file)  # through an open file: given a path, torch would write its name into the archive


def save_state(
    scratch: str, inputs: str, state: TrainingState, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Publish the state in the scratch folder."""
    value = {**vars(state), "inputs": inputs, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_torch(storage.join(scratch, STATE_FILE), value)


def restore_state(scratch: str, inputs: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Load the scratch folder's state into model and optimizer; a fresh state if there is none.

    Raises:
        DataError: the state is another training's, or cannot be read.
    """
    path = storage.join(scratch, STATE_FILE)
    if not storage.exists(path):
        return TrainingState()
    device = next(model.parameters()).device
    try:
        value = torch.load(storage.local(path), map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"cannot read the training state {path}: {error}; remove it to start over") from error
    if value.pop("inputs", None) != inputs:
        raise DataError(f"{path} belongs to another training; use another scratch folder, or remove it to start over")
    model.load_state_dict(value.pop("model"))
    optimizer.load_state_dict(value.pop("optimizer"))
    return TrainingState(**value)
