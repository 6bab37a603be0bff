"""`encoder` and `pretrain`: weights change here, by `pretrain.trainer.train`, one or several processes per training.

Both read their samples straight from the pool's shards, through a selection of rows; nothing is written again for
training. A training saves its state now and then in the artifact's scratch folder and goes on from there after a kill,
to the same weights, bit for bit, if it has the same number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ...shards import storage
from ...shards.shard import Shard, succeeded
from ..calls import Resources
from ..stage import Stage, Task, Work
from .filtering import read_fates
from .pool import shards_of


@dataclass(frozen=True)
class Training:
    """Everything about a training but its data and its seed, as the config gives it.

    Attributes:
        model_identity: of the architecture.
        start: local weights to go on from; ``start_weights`` is their identity.
        files: identity of the other local files that the recipe names.
        processes: that train together.
        license: for the model card.
    """

    recipe: Any
    model: str
    model_identity: str
    samples_seen: int
    start: str | None = None
    start_weights: str = ""
    files: str = ""
    processes: int = 1
    license: str = ""

    def identity(self) -> dict[str, Any]:
        """What the result depends on, as JSON."""
        value = {
            "model": self.model,
            "model_identity": self.model_identity,
            "recipe": self.recipe.described(),
            "samples_seen": self.samples_seen,
        }
        if self.start_weights:
            value["start"] = self.start_weights
        if self.files:
            value["files"] = self.files
        if self.license:
            value["license"] = self.license
        return value

    def resources(self, work: Work) -> Resources:
        """A GPU per process, if there are any."""
        return Resources(1.0 if work.gpus() else 0.0, self.processes)


@dataclass(frozen=True)
class Data:
    """Where the samples of a training are; small enough to travel.

    Attributes:
        shards: of the pool; ``subset`` is the folder of the subset's fates, None = all fetched samples.
        also: shards of what is mixed in, with its share of the positions.
        validation: shards of the validation set.
    """

    shards: list[Shard]
    subset: str | None = None
    also: tuple[tuple[list[Shard], float], ...] = ()
    validation: list[Shard] | None = None


@dataclass(eq=False)
class EncoderStage(Stage):
    """Train an encoder on trusted data, all of it.

    Inputs: ``data`` (a `PoolStage`); ``start`` (an `EncoderStage`) when it goes on from another training's weights.
    Files: ``model/``, an encoder folder.
    """

    kind: ClassVar[str] = "encoder"
    version: ClassVar[int] = 2
    training: Training = field(kw_only=True)
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        return {**self.training.identity(), "seed": self.seed}

    def expected_parts(self, done: Any) -> int | None:
        return 1

    def run(self, work: Work) -> dict[str, Any]:
        start = storage.join(work.inputs["start"].data, "model") if "start" in work.inputs else self.training.start
        data = Data(shards_of(work.inputs["data"]))
        arguments = (self.training, data, start, self.seed, self.name)
        return work.map(_train, {"model": arguments}, self.training.resources(work))["model"]


@dataclass(eq=False)
class PretrainStage(Stage):
    """Train one model per seed on a subset.

    Inputs: ``pool`` and ``subset``; where the config asks for them ``also/NAME`` (a `PoolStage`) for what is mixed in,
    ``validation`` (a `PoolStage`) and ``start`` (an `EncoderStage`).
    Files: ``seed0/``, ``seed1/``..., encoder folders, or classifiers' of a supervised recipe.
    Summary: ``seeds``: what `pretrain.trainer.train` reported for each.
    """

    kind: ClassVar[str] = "pretrain"
    version: ClassVar[int] = 2
    training: Training = field(kw_only=True)
    seed: int = 0
    seeds: int = 1
    shares: dict[str, float] = field(default_factory=dict)  # of the positions, by name of what is mixed in

    def identity(self) -> dict[str, Any]:
        mixed = {"shares": self.shares} if self.shares else {}
        return {**self.training.identity(), "seed": self.seed, "seeds": self.seeds, **mixed}

    def expected_parts(self, done: Any) -> int | None:
        return self.seeds

    def run(self, work: Work) -> dict[str, Any]:
        inputs = work.inputs
        data = Data(
            shards_of(inputs["pool"]),
            inputs["subset"].data,
            tuple((shards_of(inputs[f"also/{name}"]), share) for name, share in self.shares.items()),
            shards_of(inputs["validation"]) if "validation" in inputs else None,
        )
        start = storage.join(inputs["start"].data, "model") if "start" in inputs else self.training.start
        common = (self.training, data, start)
        subset = self.inputs["subset"].name
        parts = {f"seed{s}": (*common, training_seed(self.seed, s), subset) for s in range(self.seeds)}
        return {"seeds": work.map(_train, parts, self.training.resources(work))}


def training_seed(run_seed: int, index: int) -> int:
    """Seed of the `index`-th training of a run: equal over subsets, so that arms are paired by seed."""
    return 1000 * run_seed + index


def _train(task: Task, training: Training, data: Data, start: str | None, seed: int, told: str) -> dict[str, Any]:
    from ...pretrain.outputs.model_card import CardFacts
    from ...pretrain.processes.world import World
    from ...pretrain.trainer import train
    from ...pretrain.training_data import DataPart, open_training_data

    rest = 1.0 - sum(share for _, share in data.also)
    parts = [DataPart(data.shards, [_rows(shard, data.subset) for shard in data.shards], rest)]
    parts += [DataPart(shards, None, share) for shards, share in data.also]
    validation = DataPart(data.validation) if data.validation is not None else None
    opened = open_training_data(training.recipe, parts, validation)
    report = train(
        training.recipe,
        training.model,
        opened.samples,
        samples_seen=training.samples_seen,
        seed=seed,
        start=start,
        out=storage.join(task.out, task.part),
        scratch=task.scratch,
        progress=task.progress,
        world=World(task.member.rank, task.member.size),
        stop=task.stopping,
        validation=opened.validation,
        classes=opened.classes,
        facts=CardFacts(
            subset=told.removeprefix("subset/"), fingerprint=opened.samples.identity(), license=training.license
        ),
    )
    return {**report.to_json(), "speed": report.speed}


def _rows(shard: Shard, subset: str | None) -> np.ndarray:
    """Rows of a shard to train on, repeated by multiplicity, ascending."""
    if subset is None:
        return np.flatnonzero(succeeded(shard.read_table(["status"])))
    times = read_fates(subset, shard.name)["times"].to_numpy()
    return np.repeat(np.arange(len(times)), times)
