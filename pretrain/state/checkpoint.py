"""The resumable state of a training, saved whole or not at all.

Everything random is a function of (seed, step), so a state is the weights, the optimizer's moments, the average of the
weights, the step and the log so far. It is read without unpickling code, and only by the training that wrote it.

A state is two files, ``state_<step>.pt`` and, written after it, ``state_<step>.json`` with the digest of the first and
with all that the result depends on, for people to read. The two newest states are kept: one that a bad disk has spoilt
is told by its digest and the one before is used. Writing happens in a thread; the training loses the time of a copy.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import DataError
from ...shards import storage
from ..processes.world import ALONE, World
from .background import BackgroundWriter, Copies
from .training_inputs import Inputs
from .whole_state import Stateful, load_whole_state, whole_state

STATE_FILE = "training_state.pt"
KEPT = 2  # states
_STATE = re.compile(r"state_(\d+)\.(json|pt)")
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError)


class SpoiltState(UserWarning):
    """A saved state cannot be read; the one before is used."""


@dataclass
class TrainingState:
    """Where a training is.

    Attributes:
        step: steps done.
        replaced: samples so far that stood in for a corrupt one.
        corrupt: names of the corrupt images met so far.
        log: lines of the log so far.
        losses: of the steps since the last line.
        validation: lines of the evaluations so far.
        notes: whatever else the trainer has to remember, as JSON.
    """

    step: int = 0
    replaced: int = 0
    corrupt: list[str] = field(default_factory=list)
    log: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The states of one training in its scratch folder; a context, which ends when everything is written."""

    def __init__(
        self,
        scratch: str,
        inputs: Inputs,
        world: World = ALONE,
        every_s: float = 300.0,
        every_steps: int = 0,
        threaded: bool = True,
    ) -> None:
        """
        Args:
            scratch: folder that all processes see.
            every_s: seconds between two states, 0 = one per step; by process 0's clock.
            every_steps: steps between two states besides; 0 = by the clock alone.
            threaded: False = `save` returns when the state is written.
        """
        self._scratch, self._inputs, self._world = scratch, inputs, world
        self._every_s, self._every_steps = every_s, every_steps
        self.writer = BackgroundWriter(threaded)
        self._copies = Copies()
        self._good: list[int] = []  # steps of the states that can be read, oldest first
        self._saved = time.monotonic()

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, average: Stateful | None = None
    ) -> TrainingState:
        """Bring network, optimizer and average to where the newest readable state is; every process calls this.

        Returns:
            the state; a fresh one if there is none.

        Raises:
            DataError: the state is another training's (names what changed), or none of the states can be read.
        """
        found = self._newest()
        if found is None:
            return TrainingState()
        load_whole_state(found, model, optimizer, average)
        if self._world.size > 1:  # nobody may write before all have read
            torch.distributed.barrier()
        self._saved = time.monotonic()
        return TrainingState(**found["state"])

    def _newest(self) -> dict[str, Any] | None:
        steps = self._steps("json")
        for step in reversed(steps):
            path = self._path(step, "json")
            try:
                value = self._read(step)
            except _UNREADABLE as error:
                self._good.clear()
                warnings.warn(f"cannot read the training state {path}: {error}", SpoiltState, stacklevel=3)
                continue
            self._inputs.refuse_others(value["described"], self._scratch)
            self._good = [s for s in steps if s <= step][-KEPT:]
            return value
        if steps:
            raise DataError(
                f"none of the training states in {self._scratch} can be read; remove the folder to start over"
            )
        return None

    def _read(self, step: int) -> dict[str, Any]:
        told = storage.read_json(self._path(step, "json"))
        if told["inputs"] != self._inputs.digest:
            if Inputs(told["described"]).digest != told["inputs"]:
                raise ValueError("its description is not the one that was written")
            return {"described": told["described"]}  # its tensors are of no interest
        local = storage.local(self._path(step, "pt"))
        if _digest(local) != told["blake2b"]:
            raise ValueError("its digest is not that of what was written")
        return torch.load(local, map_location="cpu", weights_only=True) | {"described": told["described"]}

    def due(self, step: int) -> bool:
        """Whether the time or the step has come. The clock is this process's own: see `agreed`."""
        if self._every_steps and step % self._every_steps == 0:
            return True
        return time.monotonic() - self._saved >= self._every_s

    def save(
        self,
        state: TrainingState,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Stateful | None = None,
    ) -> None:
        """Copy the state and have it written; every process calls this at the same step. Raises what went wrong with
        the state before."""
        whole = whole_state(model, optimizer, self._world, average)
        if self._world.rank == 0 and state.step not in self._good[-1:]:
            self.writer.wait()  # its buffers are used again
            value = self._copies.take({**whole, "state": vars(state)})
            self.writer.submit(partial(self._write, state.step, value))
        self._saved = time.monotonic()

    def _write(self, step: int, value: Mapping[str, Any]) -> None:
        path = self._path(step, "pt")
        with storage.publishing(path) as temporary:
            with open(temporary, "wb") as file:
                torch.save(value, file)
            digest = _digest(temporary)
        told = {"step": step, "blake2b": digest, "inputs": self._inputs.digest, "described": self._inputs.described}
        storage.write_json(self._path(step, "json"), told)
        self._good = [*(s for s in self._good if s < step), step][-KEPT:]
        for name in ("json", "pt"):  # the receipt first: there is never one without its tensors
            for old in self._steps(name):
                if old not in self._good:
                    remove(self._path(old, name))

    def _steps(self, extension: str) -> list[int]:
        found = [_STATE.fullmatch(name) for name in storage.list_names(self._scratch)]
        return sorted(int(m[1]) for m in found if m and m[2] == extension)

    def _path(self, step: int, extension: str) -> str:
        return storage.join(self._scratch, f"state_{step:010d}.{extension}")

    def close(self) -> None:
        """Until everything is written; raises what went wrong."""
        self.writer.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: Any) -> None:
        self.writer.__exit__(*error)


def agreed(flag: bool, world: World, device: torch.device | None = None) -> bool:
    """Whether any process says so, told to all: clocks and signals differ, and a save is made together.

    Reading the answer waits for the device, so ask every few steps only. `device`: where the group's tensors live.
    """
    if world.size == 1:
        return flag
    told = torch.tensor(int(flag), dtype=torch.int32, device=device or "cpu")
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told.item())


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def remove(path: str) -> None:
    """Delete a file, if it is there."""
    if storage.is_local(path):
        Path(path.removeprefix("file://")).unlink(missing_ok=True)
        return
    fs, remote = storage.url_to_fs(path)
    if fs.exists(remote):
        fs.rm(remote)


def save_torch(path: str, value: Any) -> None:
    """Publish `value` in torch's format; the bytes depend on the value only."""
    with storage.publishing(path) as temporary, open(temporary, "wb") as file:
        torch.save(value, file)  # through an open file: given a path, torch would write its name into the archive


def save_state(
    scratch: str, inputs: str, state: TrainingState, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Publish the state of a small network in one file of the scratch folder; returns when it is written."""
    value = {**vars(state), "inputs": inputs, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_torch(storage.join(scratch, STATE_FILE), value)


def restore_state(scratch: str, inputs: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Load what `save_state` wrote into model and optimizer; a fresh state if there is none.

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
