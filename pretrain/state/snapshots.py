"""Weights kept on the way: the last ones and the best, as open_clip checkpoints.

They are made at fixed numbers of samples seen and are a function of the training alone; until the training ends they
lie in its scratch folder and are thinned out as it goes. One that is thinned out can never be among those that stay in
the end, so a training that is killed, goes back some steps and makes the same ones again leaves the same files.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import Field

from ...registry import Options
from ...shards import storage

FOLDER = "checkpoints"
BEST_FILE = f"{FOLDER}/best.json"
MEASURE = "clip_val_loss"


class SnapshotOptions(Options):
    """Which weights of the way are published with the model."""

    number: int = Field(0, ge=0, description="Checkpoints at equal distances, the last one at the end; 0 = none.")
    every: int = Field(0, ge=0, description="Samples seen between two checkpoints, instead of a number; 0 = none.")
    keep: int = Field(0, ge=0, description="How many of the last ones are kept; 0 = all.")
    best: bool = Field(True, description="Keep the one with the lowest validation loss besides, if there is one.")

    def targets(self, samples_seen: int) -> list[int]:
        """Samples seen at which a checkpoint is due, ascending, for a budget of `samples_seen`."""
        if self.every:
            return [*range(self.every, samples_seen, self.every), samples_seen]
        number = min(self.number, samples_seen)
        return [math.ceil(samples_seen * (i + 1) / number) for i in range(number)]


def snapshot_name(samples: int) -> str:
    """File name of the weights after `samples` samples; zeros in front, so that names sort like numbers."""
    return f"samples_{samples:012d}.pt"


class Snapshots:
    """The snapshots of one training."""

    def __init__(self, scratch: str, options: SnapshotOptions, samples_seen: int) -> None:
        """
        Args:
            scratch: the training's scratch folder.
            samples_seen: its budget.
        """
        self._folder = storage.join(scratch, "snapshots")
        self._options = options
        self._targets = options.targets(samples_seen)

    def due(self, before: int, after: int) -> bool:
        """Whether the step that went from `before` to `after` samples seen passed a place for a snapshot."""
        return any(before < target <= after for target in self._targets)

    def write(self, value: Mapping[str, Any], made: Sequence[int], validation: Sequence[Mapping[str, float]]) -> None:
        """Publish one in the scratch folder and remove those that will not be wanted; call it in the background, before
        the state of the same or a later step is saved.

        Args:
            value: the checkpoint (`export.checkpoint_value`) after ``made[-1]`` samples.
            made: samples seen at all snapshots so far, this one included, ascending.
            validation: lines of the evaluations so far, with ``samples_seen`` and ``clip_val_loss``.
        """
        from .checkpoint import save_torch

        save_torch(storage.join(self._folder, snapshot_name(made[-1])), value)
        kept = {snapshot_name(n) for n in self.kept(made, validation)}
        for samples in made:  # later ones, of a training that went back some steps, are made again and overwritten
            if snapshot_name(samples) not in kept:
                self._remove(snapshot_name(samples))

    def job(self, value: Mapping[str, Any], made: Sequence[int], validation: Sequence[Mapping[str, float]]) -> Any:
        """`write`, ready for `background.BackgroundWriter.submit`."""
        return partial(self.write, value, list(made), list(validation))

    def kept(self, made: Sequence[int], validation: Sequence[Mapping[str, float]]) -> list[int]:
        """Which of the snapshots stay: the last ones, and the best."""
        last = made[-self._options.keep :] if self._options.keep else made
        best = self.best(made, validation)
        return sorted({*last, *([int(best["samples_seen"])] if best else [])})

    def best(self, made: Sequence[int], validation: Sequence[Mapping[str, float]]) -> Mapping[str, float] | None:
        """The validation line with the lowest loss at a snapshot, the first of equals; None without any."""
        if not self._options.best:
            return None
        places = set(made)
        lines = [v for v in validation if v.get("samples_seen") in places and math.isfinite(v.get(MEASURE, math.nan))]
        return min(lines, key=lambda v: (v[MEASURE], v["samples_seen"]), default=None)

    def publish(self, out: str, made: Sequence[int], validation: Sequence[Mapping[str, float]]) -> list[str]:
        """Copy those that stay to ``checkpoints/`` of the published folder; returns their names.

        ``best.json`` says which is the best, and why.
        """
        names = [snapshot_name(n) for n in self.kept(made, validation)]
        for name in names:
            source = storage.local(storage.join(self._folder, name))
            with storage.publishing(storage.join(out, FOLDER, name)) as temporary:
                shutil.copyfile(source, temporary)
        best = self.best(made, validation)
        if best is not None:
            compared = len({v["samples_seen"] for v in validation} & set(made))
            value = {
                "file": snapshot_name(int(best["samples_seen"])),
                "measure": MEASURE,
                "value": best[MEASURE],
                "samples_seen": int(best["samples_seen"]),
                "why": f"the lowest validation loss of {compared} checkpoint{'s' if compared != 1 else ''}",
            }
            storage.write_json(storage.join(out, BEST_FILE), value)
        return names

    def _remove(self, name: str) -> None:
        from .checkpoint import remove

        remove(storage.join(self._folder, name))
