"""`encoder` and `pretrain`: weights change here, by `pretrain.trainer.train`, one process per training.

Both read their samples straight from the pool's shards, through a selection of rows; nothing is written again for
training. A training saves its state now and then in the artifact's scratch folder and goes on from there after a kill,
to the same weights, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...shards import storage
from ...shards.shard import Shard, succeeded
from ..stage import Stage, Task, Work
from .filtering import read_fates
from .pool import shards_of


@dataclass(eq=False)
class EncoderStage(Stage):
    """Train an encoder on trusted data, all of it.

    Inputs: ``data`` (a `PoolStage`); ``start`` (an `EncoderStage`) when it goes on from another training's weights.
    Files: ``model/``, an encoder folder.
    """

    kind: ClassVar[str] = "encoder"
    model: str = ""
    model_identity: str = ""
    recipe: Any = None
    samples_seen: int = 0
    seed: int = 0
    start: str | None = None  # local weights to go on from
    start_weights: str = ""  # their identity

    def identity(self) -> dict[str, Any]:
        return _identity(self) | ({"start": self.start_weights} if self.start_weights else {})

    def expected_parts(self, done: Any) -> int | None:
        return 1

    def run(self, work: Work) -> dict[str, Any]:
        shards = shards_of(work.inputs["data"])
        start = storage.join(work.inputs["start"].data, "model") if "start" in work.inputs else self.start
        arguments = (self.recipe, self.model, shards, None, self.samples_seen, self.seed, start)
        return work.map(_train, {"model": arguments})["model"]


@dataclass(eq=False)
class PretrainStage(Stage):
    """Train one model per seed on a subset.

    Inputs: ``pool`` and ``subset``.
    Files: ``seed0/``, ``seed1/``..., encoder folders.
    Summary: ``seeds``: what `pretrain.trainer.train` reported for each.
    """

    kind: ClassVar[str] = "pretrain"
    model: str = ""
    model_identity: str = ""
    recipe: Any = None
    samples_seen: int = 0
    seed: int = 0
    seeds: int = 1

    def identity(self) -> dict[str, Any]:
        return {**_identity(self), "seeds": self.seeds}

    def expected_parts(self, done: Any) -> int | None:
        return self.seeds

    def run(self, work: Work) -> dict[str, Any]:
        shards, subset = shards_of(work.inputs["pool"]), work.inputs["subset"].data
        arguments = (self.recipe, self.model, shards, subset, self.samples_seen)
        parts = {f"seed{s}": (*arguments, training_seed(self.seed, s)) for s in range(self.seeds)}
        return {"seeds": work.map(_train, parts)}


def training_seed(run_seed: int, index: int) -> int:
    """Seed of the `index`-th training of a run: equal over subsets, so that arms are paired by seed."""
    return 1000 * run_seed + index


def _identity(stage: EncoderStage | PretrainStage) -> dict[str, Any]:
    return {
        "model": stage.model,
        "model_identity": stage.model_identity,
        "recipe": stage.recipe.model_dump(mode="json", exclude={"cache_mb", "checkpoint_every_s"}),  # cannot matter
        "samples_seen": stage.samples_seen,
        "seed": stage.seed,
    }


def _train(
    task: Task,
    recipe: Any,
    model: str,
    shards: list[Shard],
    subset: str | None,
    samples_seen: int,
    seed: int,
    start: str | None = None,
) -> dict[str, Any]:
    from ...pretrain.dataset import SubsetDataset
    from ...pretrain.trainer import train

    dataset = SubsetDataset(shards, [_rows(shard, subset) for shard in shards])
    report = train(
        recipe,
        model,
        dataset,
        samples_seen=samples_seen,
        seed=seed,
        start=start,
        out=storage.join(task.out, task.part),
        scratch=task.scratch,
        progress=task.progress,
    )
    return report.to_json()


def _rows(shard: Shard, subset: str | None) -> np.ndarray:
    """Rows of a shard to train on, repeated by multiplicity, ascending."""
    if subset is None:
        return np.flatnonzero(succeeded(shard.read_table(["status"])))
    times = read_fates(subset, shard.name)["times"].to_numpy()
    return np.repeat(np.arange(len(times)), times)
