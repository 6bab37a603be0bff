"""`evalset`, `evalcheck` and `eval`: built-in evaluation sets, whether all is there, and every model on every set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from ...errors import ConfigError
from ...registry import unknown
from ...shards import storage
from ...shards.evalsets.builtin import BUILTIN
from ...shards.evalsets.source import EvalSource
from ..stage import Stage, Task, Work

Model = tuple[str, str | None]
"""What `load_encoder` takes: a folder or name, and a local checkpoint."""


@dataclass(eq=False)
class EvalSetStage(Stage):
    """Write a built-in evaluation set in CLIP_benchmark's layout. Files: ``wds_<name>/``."""

    kind: ClassVar[str] = "evalset"
    builtin: str = ""

    def __post_init__(self) -> None:
        if self.builtin not in BUILTIN:
            raise ConfigError(f"eval.data: {unknown('evaluation set', self.builtin, BUILTIN)}, or give a folder")

    def identity(self) -> dict[str, Any]:
        return {"builtin": self.builtin}

    def expected_parts(self, done: Any) -> int | None:
        return 1

    def run(self, work: Work) -> dict[str, Any]:
        work.map(_write_builtin, {self.builtin: (self.builtin,)})
        return {"folder": f"wds_{self.builtin}"}


def _write_builtin(task: Task, builtin: str) -> dict[str, Any]:
    BUILTIN[builtin](storage.join(task.out, f"wds_{builtin}"))
    return {}


@dataclass(eq=False)
class EvalCheckStage(Stage):
    """See that every suite finds its sets and every set is whole, while nothing has been trained yet.

    Inputs: ``evalset/*`` for the built-in sets.
    Summary: ``sets``: one line about each.
    """

    kind: ClassVar[str] = "evalcheck"
    suites: tuple[Any, ...] = ()
    sources: tuple[EvalSource, ...] = ()
    source_identities: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        return evaluation_identity(self.suites, self.source_identities)

    def expected_parts(self, done: Any) -> int | None:
        return 1

    def run(self, work: Work) -> dict[str, Any]:
        return work.map(_check, {"sets": (all_sources(work, self.sources), self.suites)})["sets"]


def _check(task: Task, sources: Sequence[EvalSource], suites: tuple[Any, ...]) -> dict[str, Any]:
    from ...errors import DataError
    from ...eval.opened import open_sets
    from ...shards.evalsets.check import check

    found = check(sources)
    if found.problems:
        raise DataError("\n".join(found.problems))
    open_sets([one for source in sources for one in source.open()], list(suites))
    return {"sets": [one.line() for one in found.sets]}


def evaluation_identity(suites: Sequence[Any], sources: Sequence[str]) -> dict[str, Any]:
    """What is measured on what."""
    told = [{**s.model_dump(mode="json", exclude=s.paths()), "version": s.version} for s in suites]
    return {"suites": told, "sets": list(sources)}


def all_sources(work: Work, sources: Sequence[EvalSource]) -> tuple[EvalSource, ...]:
    """The sets of the config in its order, built-in ones where the stages before wrote them."""

    def place(source: EvalSource) -> EvalSource:
        built = work.inputs.get(f"evalset/{source.path}")
        return source if built is None else source.at(storage.join(built.data, built.summary["folder"]))

    return tuple(place(source) for source in sources)


def source_identity(source: EvalSource, where: str) -> str:
    """What files and options of a source are, for a fingerprint; a built-in set's files are those of its own stage.

    Raises:
        ConfigError: nothing is there.
    """
    if source.path in BUILTIN:
        return json.dumps([source.path, source.told()], sort_keys=True)
    if not storage.exists(source.path):
        raise ConfigError(f"{where}: {unknown('file, folder or built-in evaluation set', source.path, BUILTIN)}")
    return source.identity()


@dataclass(eq=False)
class EvalStage(Stage):
    """All suites on all evaluation sets, for each seed's model of one subset, or for one encoder.

    A part is a few models, which share one pass over the pictures; how many does not change a result.

    Inputs: ``pretrain`` (a subset's models) or ``encoder`` (a training), unless the model is a loaded one; ``check``;
    and ``evalset/*`` for the built-in sets.
    Files: ``seed0/results.json`` and the per-sample outcomes beside it; of an encoder ``model/results.json``.
    Summary: ``seeds``: the results of each.
    """

    kind: ClassVar[str] = "eval"
    version: ClassVar[int] = 2
    suites: tuple[Any, ...] = ()
    sources: tuple[EvalSource, ...] = ()
    source_identities: tuple[str, ...] = ()
    together: int = 1
    model: Model | None = None  # an encoder that is loaded
    weights: str = ""  # its identity
    features: str = ""  # folder where features outlive the stage; "" = they go with the parts

    def identity(self) -> dict[str, Any]:
        model = {"model": self.model[0], "weights": self.weights} if self.model else {}
        return evaluation_identity(self.suites, self.source_identities) | model

    def expected_parts(self, done: Any) -> int | None:
        if "pretrain" in self.inputs:
            return -(-len(done["pretrain"].summary["seeds"]) // self.together) if "pretrain" in done else None
        return 1

    def run(self, work: Work) -> dict[str, Any]:
        sources = all_sources(work, self.sources)
        groups = _groups(self._models(work), self.together)
        parts = {"+".join(models): (models, sources, self.suites, self.features) for models in groups}
        found = work.map(_evaluate, parts)
        return {"seeds": {name: result for part in parts for name, result in found[part].items()}}

    def _models(self, work: Work) -> dict[str, Model]:
        """The models by the folder of their results."""
        if "pretrain" in work.inputs:
            trained = work.inputs["pretrain"]
            return {seed: (storage.join(trained.data, seed), None) for seed in trained.summary["seeds"]}
        if "encoder" in work.inputs:
            return {"model": (storage.join(work.inputs["encoder"].data, "model"), None)}
        assert self.model is not None
        return {"model": self.model}


def _groups(models: Mapping[str, Model], size: int) -> list[dict[str, Model]]:
    left = iter(models.items())
    return [dict(group) for group in iter(lambda: list(islice(left, size)), [])]


def _evaluate(
    task: Task, models: Mapping[str, Model], sources: Sequence[EvalSource], suites: tuple[Any, ...], features: str
) -> dict[str, Any]:
    from ...eval.evaluate import evaluate_models

    outs = {name: storage.join(task.out, name) for name in models}
    sets = [one for source in sources for one in source.open()]
    return evaluate_models(models, sets, list(suites), outs, features or task.scratch, progress=task.progress)
